"""Other people's benchmarks, read from the user's own copy into our prompts and documents, and ours written in their layouts.

Nothing of a benchmark is in this repository: the data belongs to its authors, and some of it has no licence. A path in
a stranger's file is only ever a name inside the folder that the file belongs to.

`opening`  OpenING (arXiv 2411.18499): prompts, outputs, scores and battles in; outputs out
`isg`      ISG-Bench (arXiv 2411.17188): prompts in; submissions out
`mmrb2`    Multimodal RewardBench 2 (arXiv 2512.16899): preference pairs in, the exam of a judge
"""
