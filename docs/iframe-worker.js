/* Pages that are opened from disk may start no worker, which the search needs: there a frame takes its place. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      /* What the script posts comes out here; what is posted here before it is loaded waits. */
      inner.postMessage = data => this.tell(this, data);
      inner.importScripts = () => {};
      const script = inner.document.createElement("script");
      script.src = new URL(address, location.href);
      script.onload = () => {
        this.inner = inner;
        this.waiting.splice(0).forEach(data => this.tell(inner, data));
      };
      inner.document.body.append(script);
    }

    postMessage(data) {
      if (this.inner) this.tell(this.inner, data);
      else this.waiting.push(data);
    }

    terminate() {}

    tell(target, data) {
      setTimeout(() => {
        const event = new MessageEvent("message", { data });
        target.dispatchEvent(event);
        if (target === this && this.onmessage) this.onmessage(event);
      });
    }
  };
}
