// What a node wants to tell about its run (words that the small world does not know, pages kept as they were), below its widgets.
import { app } from "../../../scripts/app.js"
import { element, letScroll, loadStyles } from "./dom.js"

const NODES = ["WeaverPlan", "WeaverVisualizePlan"]
const HEIGHT = 92

function show(node, notes) {
  const list = node.weaverNotes
  if (!list) return
  list.hidden = !notes.length
  list.replaceChildren(...notes.map((note) => element("li", { textContent: note })))
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
}

app.registerExtension({
  name: "Weaver.Notes",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!NODES.includes(nodeData.name)) return
    loadStyles()

    const onNodeCreated = nodeType.prototype.onNodeCreated
    nodeType.prototype.onNodeCreated = function () {
      onNodeCreated?.apply(this, arguments)
      const list = element("ul", { className: "weaver-notes", hidden: true })
      letScroll(list)
      const height = () => (list.hidden ? 0 : HEIGHT)
      const widget = this.addDOMWidget("notes", "weaver_notes_view", list, {
        serialize: false,
        hideOnZoom: false,
        margin: 4,
        getMinHeight: height,
        getMaxHeight: height,
      })
      widget.serialize = false // the option keeps it out of the prompt, this one out of the saved workflow
      this.weaverNotes = list
    }

    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (message) {
      onExecuted?.apply(this, arguments)
      show(this, message?.weaver_notes ?? [])
    }
  },
})
