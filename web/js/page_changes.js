// What the buttons of the book view do: they write a page's change into the node that draws, and queue the graph. Nothing is kept
// anywhere else, so a saved workflow holds the changes, undo takes them back, and the API sees them. No side effects on import.
import { app } from "../../../scripts/app.js"
import { nodesAt, rootGraph, sourceOf } from "./graph_walk.js"
import { tellComfy } from "./tell_comfy.js"

const WIDGET = "page_changes"
const PASSES_ON = new Set(["WeaverPreviewStory"]) // nodes whose story is the one that comes in

/** The node that draws the story of this preview, where that can carry changes; or null. */
export function carrierOf(preview) {
  for (let node = preview, steps = 0; node && steps < 64; steps++) {
    const slot = node.inputs?.findIndex((input) => input.name === "story") ?? -1
    const source = slot < 0 ? null : sourceOf(node, slot)?.node
    if (!source) return null
    if (widgetOf(source, WIDGET)) return source
    node = PASSES_ON.has(source.type) ? source : null
  }
  return null
}

/** The changes that a node carries. What is no such list counts as none; the server says what is wrong with it. */
export function changesOf(carrier) {
  try {
    const changes = JSON.parse(widgetOf(carrier, WIDGET)?.value || "[]")
    return Array.isArray(changes) ? changes : []
  } catch {
    return []
  }
}

/** The change that made this page what it is; or null. Ids alone do not tell: every story has a p1. */
export function changeOf(changes, page) {
  return changes.find((change) => change.page === page.id && (change.prompt ?? change.of) === page.prompt) ?? null
}

/** The changes with these fields set for a page (undefined takes one out); a change of another story's page gives way. */
export function withChange(changes, page, fields) {
  const before = changeOf(changes, page)
  const change = { page: page.id, of: before?.of ?? page.prompt, ...before, ...fields }
  for (const [name, value] of Object.entries(change)) if (value === undefined || value === null) delete change[name]
  if (change.prompt === change.of) delete change.prompt
  const others = changes.filter((other) => other.page !== page.id)
  return Object.keys(change).length > 2 ? [...others, change] : others
}

export function writeChanges(carrier, changes) {
  const widget = widgetOf(carrier, WIDGET)
  widget.value = changes.length ? JSON.stringify(changes) : ""
  widget.callback?.(widget.value)
  showOrHide(carrier)
  carrier.graph?.setDirtyCanvas?.(true, true)
  tellComfy()
}

/** An empty list of changes would only be clutter in the node. */
export function showOrHide(node) {
  const widget = widgetOf(node, WIDGET)
  if (widget) widget.hidden = !widget.value
}

/** Sets the seeds before this story to those it was made with, and keeps them there: else another story would come. */
export function holdSeeds(seeds) {
  for (const [executionId, name, value] of seeds ?? []) {
    const [node, index] = ownerOf(nodesAt(executionId).at(-1), name)
    if (index < 0) continue
    node.widgets[index].value = value
    const control = node.widgets.slice(index + 1).find((widget) => widget.name === "control_after_generate")
    if (control) control.value = "fixed"
  }
}

/** The node and the place of the widget that an input gets its number from: its own, or that of a primitive before it. */
function ownerOf(node, name) {
  const slot = node?.inputs?.findIndex((input) => input.name === name) ?? -1
  const source = slot < 0 ? null : sourceOf(node, slot)?.node
  if (source?.type === "PrimitiveNode") return [source, source.widgets?.length ? 0 : -1]
  return [node, node?.widgets?.findIndex((widget) => widget.name === name) ?? -1]
}

/** Queues what this preview needs, and no other output: a page that is tried out should not save the story each time. */
export async function drawAgain(preview) {
  const targets = preview.graph === rootGraph() ? [String(preview.id)] : undefined
  await app.queuePrompt(0, 1, targets)
}

/** The same with `redraw_stale` switched on for this one run. */
export async function drawStale(preview, carrier) {
  const widget = widgetOf(carrier, "redraw_stale")
  if (!widget || widget.value) return drawAgain(preview)
  widget.value = true
  try {
    await drawAgain(preview)
  } finally {
    widget.value = false
  }
}

function widgetOf(node, name) {
  return node?.widgets?.find((widget) => widget.name === name) ?? null
}
