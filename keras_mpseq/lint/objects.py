"""Methods of objects that no class of the project describes: arrays, containers, tables, generators, handles."""

from __future__ import annotations

import ast

from keras_mpseq.lint.calls import Calls, ast_text, held_roots, is_alias
from keras_mpseq.lint.outside import Call
from keras_mpseq.lint.values import NOTHING, Taint, Value, derived, is_handle, join, join_all

KEPT_BY_COPY = frozenset({"list", "dict", "set", "array", "frame", "lambda", "local-function", "generator"})


class Objects(Calls):
    """A frame that knows what common methods do."""

    def on_object(self, base: Value, method: ast.Attribute, call: Call) -> Value:
        """Follow a method by its name, and by what its object may be."""
        name = method.attr
        self._uses(base, name)
        if name in self.tables.sets["effects.consumers"] and not base.kinds & {"string"}:
            if held_roots(base):
                self.consume(base, name, call.node)
            return self.iterated(base, call.node)
        if self._is_mutator(name, call):
            self._mutate(base, method, call)
        drawn = self._draws(base, name, call)
        self._of_interest(base, name, call)
        self._side_effects(base, name, call)
        if name not in self.tables.sets["pure.methods"] or any(value.funcs for value in call.values):
            followed = name in self.tables.sets["pure.methods"] or bool(base.kinds & {"rng", "array", "frame", "own"})
            self.hand_over(call, followed=followed, text=ast_text(method))
        result = self._gives(base, name, call)
        return result._replace(taints=result.taints | drawn.taints) if drawn.taints else result

    def _uses(self, base: Value, name: str) -> None:
        # The receiver was followed quietly: all but a mere change of it is a use.
        if name not in self.tables.sets["effects.mutators"]:
            for root in base.roots:
                if root.attr and root not in self.env:
                    self.reads.add(root)
                    self.exposed.add(root)

    def _is_mutator(self, name: str, call: Call) -> bool:
        if call.kwargs.get("inplace", NOTHING).const == ("bool", True):
            return True
        if name not in self.tables.sets["effects.mutators"]:
            return False
        return call.statement or name not in self.tables.sets["effects.statement_mutators"]

    def _mutate(self, base: Value, method: ast.Attribute, call: Call) -> None:
        name = method.attr
        alias = is_alias(method.value, self)
        flags = {"item"}
        if alias:
            flags.add("alias")
            if "view" in base.kinds:
                flags.add("view")
        if name == "setdefault":
            flags.add("memo")
        value = join_all(*call.values)
        if name == "setdefault" and len(call.args) == 2:
            value = call.args[1]._replace(taints=call.args[1].taints - call.args[0].taints)
        if name in ("append", "extend", "insert"):
            value = value._replace(taints=value.taints.union(*self.orders))
        roots = [root for root in held_roots(base) if root.attr or root.kind != "param" or not base.instances]
        self.write(roots, name, call.node, value, *flags)
        if isinstance(method.value, ast.Name) and method.value.id in self.env:
            self._grow(method.value.id, name, value)

        for root in base.roots if name == "sort" else ():
            if root in self.env:
                self.env[root] = ordered(self.env[root])

    def _grow(self, variable: str, name: str, value: Value) -> None:
        """A local container takes something in, or is sorted."""
        before = self.env[variable]
        if name == "sort":
            self.env[variable] = ordered(before)
        else:
            inside = value._replace(roots=frozenset(), const=None, items=None, kinds=value.kinds - {"scalar"})
            self.env[variable] = join(before._replace(items=None), inside)

    def _draws(self, base: Value, name: str, call: Call) -> Value:
        tables = self.tables
        detail = ast_text(call.node.func)
        drawn = self.augmented(call, detail) if name not in tables.sets["pure.methods"] else frozenset()
        if drawn:
            return Value(taints=drawn)
        if "image-generator" in base.kinds and name in tables.sets["random.generator_methods"]:
            self.record("draw", detail, call.node, flags=("numpy",))
            return Value(taints=frozenset({Taint("random", detail)}))
        seeded = "random_state" in call.kwargs
        if not seeded and (name == "rvs" or (name == "sample" and call.kwargs.keys() & {"frac", "n"})):
            self.record("draw", detail, call.node, flags=("numpy", "table"))
            return Value(taints=frozenset({Taint("random", detail)}))
        known = "augmenter" in base.kinds
        named = name in tables.sets["random.augmenter_methods"]
        if (known and (named or name in ("augment_batch", "augment"))) or (named and not base.instances):
            self.record("draw", detail, call.node, flags=("augmenter",) if known else ("augmenter", "likely"))
            return Value(taints=frozenset({Taint("random", detail)}))
        if name in tables.sets["random.methods"] and ("rng" in base.kinds or (base.roots and "own" not in base.kinds)):
            result = Value(taints=frozenset({Taint("random", detail)})) if base.roots else NOTHING
            if name == "shuffle" and call.args and call.node.args:
                self.change(call.args[0], call.node.args[0], call.node, detail, call.args[0])
                self.touch(call.node.args[0], base.taints)
            return result
        return NOTHING

    def _of_interest(self, base: Value, name: str, call: Call) -> None:
        """Leave to the class what depends on what its member is."""
        sets = self.tables.sets
        wanted = (
            name in sets["random.methods"]
            or name in sets["effects.queue_consumers"]
            or name in sets["effects.database_methods"]
        )
        if wanted and "own" not in base.kinds:
            flags = {f"kind:{kind}" for kind in base.kinds & {"rng", "queue", "database", "unseeded"}}
            for root in held_roots(base):
                self.record("method", name, call.node, root, flags=flags)

    def _side_effects(self, base: Value, name: str, call: Call) -> None:
        tables = self.tables
        detail = ast_text(call.node.func)
        if name in tables.sets["effects.writer_methods"] and (call.args or call.kwargs):
            path = call.argument(0, "path_or_buf", "path", "fname", "fid", "file")
            self.record("file-write", detail, call.node, value=path)
        elif name == "save" and call.args and call.args[0].const is not None and call.args[0].const[0] == "str":
            # Of an image or a figure; what is saved to a buffer has no name.
            self.record("file-write", detail, call.node, value=call.args[0])
        if name in tables.sets["effects.path_writer_methods"] or self._opens_for_writing(base, name, call):
            self.record("file-write", detail, call.node, value=derived(base))
        if "model" in base.kinds and name in tables.sets["framework.model_methods"]:
            self.record("framework", detail, call.node)
        if name in tables.sets["framework.accelerator_methods"] or (
            name == "to" and call.args and "cuda" in str(call.args[0].const and call.args[0].const[1])
        ):
            self.record("accelerator", detail, call.node)
        if "file" in base.kinds and "tqdm" in base.kinds:
            self.record("output", detail, call.node)

    @staticmethod
    def _opens_for_writing(base: Value, name: str, call: Call) -> bool:
        mode = call.argument(0, "mode").const
        return name == "open" and "path" in base.kinds and mode is not None and bool(set(str(mode[1])) & set("wax+"))

    def _gives(self, base: Value, name: str, call: Call) -> Value:
        """Return what the method gives back."""
        sets = self.tables.sets
        result = derived(base, *call.values)
        if name in sets["effects.listing_methods"] and self._lists(base, name, call):
            site = self.site(call.node)
            return Value(kinds=frozenset({"list"}), taints=frozenset({Taint("unordered", name, site)}))
        if name == "get" and is_handle(base):
            return result
        copies = base.kinds & {"array-file", "array-dataset", "own", "frame"}
        if name in sets["effects.aliasing_methods"] and not copies:
            kinds = base.kinds | {"view"} if name not in ("get", "setdefault", "__enter__") else base.kinds
            kinds = kinds | {"asked"} if name == "get" else kinds
            taints = result.taints
            return base._replace(kinds=kinds - {"dict", "scalar"}, taints=taints, const=None, items=None)
        if name == "open" and "path" in base.kinds:
            self.record("open", "pathlib.Path.open", call.node, value=base)
            return Value(kinds=frozenset({"file"}), taints=result.taints)
        if self.tables.maps["resources.handles"].get(name) in base.kinds:
            # A cursor of a connection cannot travel either.
            kind: str = self.tables.maps["resources.handles"][name]
            return Value(kinds=frozenset({kind}), taints=result.taints)
        if "own" in base.kinds:
            return Value(kinds=frozenset({"own"}))
        if name in ("copy", "astype", "deepcopy"):
            return Value(kinds=base.kinds & KEPT_BY_COPY, funcs=base.funcs, taints=result.taints)
        if name in ("sum", "mean", "max", "min", "std", "item", "tolist", "flatten") and not base.taints:
            return NOTHING
        return result._replace(kinds=base.kinds & {"frame", "set"})

    @staticmethod
    def _lists(base: Value, name: str, call: Call) -> bool:
        return not base.instances and (name == "iterdir" or bool(call.args)) and not base.kinds & {"list", "dict"}


def ordered(value: Value) -> Value:
    """Return a value whose order is certain now."""
    return value._replace(taints=frozenset(taint for taint in value.taints if taint.kind != "unordered"))
