// Dragging cards to another place in their list, by mouse, pen or finger. No side effects.

const THRESHOLD = 4 // pixels before a press becomes a drag
const EDGE = 48 // pixels from the edge of the view where it begins to scroll
const SPEED = 14 // pixels a frame, at the edge

/** Lets `handle` drag `card` among the children of `list`, inside the scrolling `view`; `drop(index)` is told the new place. */
export function letDrag(handle, card, list, view, drop) {
  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return
    new Drag(event, handle, card, list, view, drop)
  })
}

class Drag {
  constructor(event, handle, card, list, view, drop) {
    Object.assign(this, { handle, card, list, view, drop, from: event.clientY, y: event.clientY, target: null, frame: 0 })
    this.ends = new AbortController()
    const listen = (target, name, listener) => target.addEventListener(name, listener, { signal: this.ends.signal, capture: true })
    handle.setPointerCapture(event.pointerId)
    listen(handle, "pointermove", (moved) => this.move(moved))
    listen(handle, "pointerup", () => this.end(true))
    listen(handle, "pointercancel", () => this.end(false))
    listen(handle, "lostpointercapture", () => this.end(false))
    listen(window, "keydown", (key) => {
      if (key.key !== "Escape") return
      key.stopPropagation()
      this.end(false)
    })
  }

  move(event) {
    this.y = event.clientY
    if (!this.frame && Math.abs(this.y - this.from) < THRESHOLD) return
    if (!this.frame) {
      this.card.classList.add("weaver-edit-dragged")
      this.view.classList.add("weaver-edit-dragging")
      this.scroll()
    }
    this.mark()
  }

  /** Shows where the card would go: before which of the others. */
  mark() {
    const others = [...this.list.children].filter((other) => other !== this.card)
    const index = others.findIndex((other) => {
      const { top, height } = other.getBoundingClientRect()
      return this.y < top + height / 2
    })
    this.unmark()
    this.target = index < 0 ? others.length : index
    if (index >= 0) others[index].classList.add("weaver-edit-drop-before")
    else others.at(-1)?.classList.add("weaver-edit-drop-after")
  }

  unmark() {
    for (const marked of this.list.querySelectorAll(".weaver-edit-drop-before, .weaver-edit-drop-after")) {
      marked.classList.remove("weaver-edit-drop-before", "weaver-edit-drop-after")
    }
  }

  scroll() {
    const { top, bottom } = this.view.getBoundingClientRect()
    const over = Math.max(0, this.y - (bottom - EDGE)) - Math.max(0, top + EDGE - this.y)
    if (over) {
      this.view.scrollTop += SPEED * Math.max(-1, Math.min(1, over / EDGE))
      this.mark()
    }
    this.frame = requestAnimationFrame(() => this.scroll())
  }

  end(dropped) {
    if (this.ends.signal.aborted) return
    this.ends.abort()
    cancelAnimationFrame(this.frame)
    this.unmark()
    this.card.classList.remove("weaver-edit-dragged")
    this.view.classList.remove("weaver-edit-dragging")
    if (dropped && this.frame && this.target !== null) this.drop(this.target)
  }
}
