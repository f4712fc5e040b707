// Which node comes before which in the graph, also over the borders of subgraphs. No side effects.
import { app } from "../../../scripts/app.js"

const SUBGRAPH_INPUT = -10 // ComfyUI's id for the node through which links enter a subgraph

export function rootGraph() {
  return app.rootGraph ?? app.graph
}

/** The nodes on the way to an execution id such as "3" or "3:12" (12 in the subgraph of 3); [] when it is not here. */
export function nodesAt(executionId) {
  let graph = rootGraph()
  const way = []
  for (const part of String(executionId).split(":")) {
    const node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part))
    if (!node) return []
    way.push(node)
    graph = node.subgraph
  }
  return way
}

/** The node and output slot that an input gets its value from, seen through reroutes and borders of subgraphs; or null. */
export function sourceOf(node, slot) {
  for (let steps = 0; node && steps < 64; steps++) {
    const link = node.getInputLink?.(slot)
    if (!link) return null
    if (Number(link.origin_id) === SUBGRAPH_INPUT) {
      node = instancesOf(node.graph)[0]
      slot = link.origin_slot
      continue
    }
    let origin = node.graph?.getNodeById(link.origin_id)
    let output = link.origin_slot
    while (origin?.subgraph) {
      const inner = origin.subgraph.outputs?.[output]
      const id = inner?.linkIds?.[0]
      const innerLink = id === undefined ? null : (origin.subgraph.getLink?.(id) ?? origin.subgraph.links?.get?.(id))
      if (!innerLink) return null
      output = innerLink.origin_slot
      origin = origin.subgraph.getNodeById(innerLink.origin_id)
    }
    if (!origin) return null
    if (origin.type !== "Reroute") return { node: origin, slot: output }
    node = origin
    slot = 0
  }
  return null
}

/** Whether the node with this execution id comes before `node`: whether `node` depends on it. */
export function comesBefore(executionId, node) {
  const way = nodesAt(executionId)
  if (!way.length || way.includes(node)) return false
  const before = new Set()
  const waiting = [node]
  while (waiting.length) {
    const current = waiting.pop()
    const inputs = current.inputs ?? []
    for (let slot = 0; slot < inputs.length; slot++) {
      const link = current.getInputLink?.(slot)
      if (!link) continue
      const origins = Number(link.origin_id) === SUBGRAPH_INPUT ? instancesOf(current.graph) : [current.graph?.getNodeById(link.origin_id)]
      for (const origin of origins) {
        if (!origin || before.has(origin)) continue
        before.add(origin)
        waiting.push(origin)
      }
    }
  }
  return way.some((part) => before.has(part))
}

/** The nodes that stand for this subgraph in the graphs around it. */
function instancesOf(graph, within = rootGraph(), seen = new Set()) {
  if (!within || seen.has(within)) return []
  seen.add(within)
  const nodes = within.nodes ?? within._nodes ?? []
  return nodes.flatMap((node) => (node.subgraph === graph ? [node] : node.subgraph ? instancesOf(graph, node.subgraph, seen) : []))
}
