# How far the task may go: observe < draft < supervised.
#
#     import data.countersign.lib.stage
#
#     deny contains {"code": "unsupervised_write"} if {
#         input.action.effect == "write"
#         not stage.at_least("supervised")
#     }
package countersign.lib.stage

ranks := {"observe": 1, "draft": 2, "supervised": 3}

# Whether the task's stage is `name` or further. False for a name that is no stage.
at_least(name) if ranks[input.task.stage] >= ranks[name]

# Whether somebody is there to see what the agent does.
user_present if input.task.presence == "present"
