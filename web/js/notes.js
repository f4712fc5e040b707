// What a node wants to tell about its run (words that the small world does not know, pages kept as they were), below its widgets.
import { app } from "../../../scripts/app.js"
import { element, letScroll, loadStyles } from "./dom.js"

const HEIGHT = 92

/** The list in the node; it comes with the first note, because an empty widget would keep a place in Nodes 2.0. */
function listOf(node) {
  if (node.weaverNotes) return node.weaverNotes
  const list = element("ul", { className: "weaver-notes" })
  letScroll(list)
  const height = () => (list.hidden ? 0 : HEIGHT)
  const widget = node.addDOMWidget("notes", "weaver_notes_view", list, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: height,
    getMaxHeight: height,
  })
  widget.serialize = false // the option keeps it out of the prompt, this one out of the saved workflow
  node.weaverNotes = list
  return list
}

function show(node, notes) {
  if (!notes.length && !node.weaverNotes) return
  const list = listOf(node)
  list.hidden = !notes.length
  list.replaceChildren(...notes.map((note) => element("li", { textContent: note })))
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
}

app.registerExtension({
  name: "Weaver.Notes",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("Weaver")) return // any node of the pack may have something to tell
    loadStyles()
    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (message) {
      onExecuted?.apply(this, arguments)
      show(this, message?.weaver_notes ?? [])
    }
  },
})
