// Small helpers of this pack's views. No side effects: ComfyUI loads every .js file below web/ by itself as well.

/** A new element with these properties and children. Text belongs into `textContent`. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

/** A button with an icon of ComfyUI's own icon font; without `text` the label is its tooltip and what a screen reader says. */
export function button(icon, label, onclick, text = "") {
  const made = element("button", { type: "button", className: "weaver-button", title: label, onclick })
  if (icon) made.append(element("i", { className: `pi pi-${icon}`, ariaHidden: "true" }))
  if (text) made.append(element("span", { textContent: text }))
  else made.ariaLabel = label
  return made
}

/** A style sheet of the pack, once. */
export function loadStyles(name = "weaver.css") {
  const href = new URL(`../css/${name}`, import.meta.url).href
  if (document.head.querySelector(`link[href="${href}"]`)) return
  document.head.append(element("link", { rel: "stylesheet", href }))
}

const framesAt = new Map() // where a node stands -> the frames that the page may be showing there, the newest first

/** The same for a node that ComfyUI has made anew, as it does with all nodes when it undoes something. */
export const placeOf = (node) => `${node.graph?.rootGraph?.id ?? node.graph?.id ?? ""}/${node.graph?.id ?? ""}/${node.id}`

/** Keeps a node's view in sight; `frame` is the element of its DOM widget. To be called when the node has come into the graph: Nodes 2.0
 *  goes on showing the frame of the node that was there before, so the view moves into the one that is shown. */
export function keepInSight(node, view, frame) {
  const place = placeOf(node)
  const frames = [frame, ...(framesAt.get(place) ?? []).filter((other) => other !== frame && other.isConnected)]
  framesAt.set(place, frames)
  const settle = () => {
    if (framesAt.get(place) !== frames) return // made anew once more
    const shown = frames.find((other) => other.isConnected) ?? frame
    if (view.parentElement !== shown) shown.replaceChildren(view)
  }
  if (frames.length > 1) for (const delay of [0, 100, 400, 1500]) setTimeout(settle, delay)
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

/** Keys pressed in this view are not ComfyUI's shortcuts. Ctrl+Enter, Ctrl+S and the like still are. */
export function keepKeys(view) {
  view.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation()
  })
}

/** Puts text into the clipboard; also where the page has no secure connection and so no `navigator.clipboard`. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = element("textarea", { value: text, className: "weaver-copy" })
    ;(document.querySelector("dialog[open]") ?? document.body).append(area)
    area.select()
    document.execCommand("copy")
    area.remove()
  }
}
