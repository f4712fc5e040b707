// Small helpers of this pack's views. No side effects: ComfyUI loads every .js file below web/ by itself as well.

/** A new element with these properties and children. Text belongs into `textContent`. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

/** The pack's style sheet, once. */
export function loadStyles() {
  const href = new URL("../css/weaver.css", import.meta.url).href
  if (document.head.querySelector(`link[href="${href}"]`)) return
  document.head.append(element("link", { rel: "stylesheet", href }))
}

/** Lets the wheel scroll this view instead of zooming the canvas, as long as there is something to scroll. */
export function letScroll(view) {
  view.dataset.captureWheel = "true"
  view.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey && view.scrollHeight > view.clientHeight) event.stopPropagation()
    },
    { passive: true },
  )
  // Selecting text in the view must not drag the node.
  view.addEventListener("pointerdown", (event) => event.stopPropagation())
}
