// What a node wants to tell about its run (words that the small world does not know, pages kept as they were), below its widgets.
import { app } from "../../../scripts/app.js"
import { element, letScroll, loadStyles } from "./dom.js"

const NODES = ["WeaverPlan", "WeaverVisualizePlan"]
const HEIGHT = 92

function show(node, notes) {
  const at = node.widgets?.indexOf(node.weaverNotes) ?? -1
  if (!notes.length) {
    if (at >= 0) node.removeWidget(node.weaverNotes)
    node.weaverNotes = undefined
    return
  }
  if (at < 0) {
    const list = element("ul", { className: "weaver-notes" })
    letScroll(list)
    node.weaverNotes = node.addDOMWidget("notes", "weaver_notes_view", list, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => HEIGHT,
      getMaxHeight: () => HEIGHT,
    })
    node.weaverNotes.serialize = false // the option keeps it out of the prompt, this one out of the saved workflow
  }
  node.weaverNotes.element.replaceChildren(...notes.map((note) => element("li", { textContent: note })))
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
}

app.registerExtension({
  name: "Weaver.Notes",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!NODES.includes(nodeData.name)) return
    loadStyles()
    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (message) {
      onExecuted?.apply(this, arguments)
      show(this, message?.weaver_notes ?? [])
    }
  },
})
