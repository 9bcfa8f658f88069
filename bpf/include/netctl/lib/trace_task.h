/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What instruments on what threads do share: whether the one that runs is selected. Include vmlinux.h and bpf_helpers.h
 * before.
 */
#ifndef NETCTL_LIB_TRACE_TASK_H
#define NETCTL_LIB_TRACE_TASK_H

#include <netctl/lib/trace_ring.h>

/* Nothing is put onto the stack here: programs at functions of processes have little of it. */
static __always_inline bool nc_task_selected(const struct task_struct *task)
{
	if (selection.select & NC_TRACE_SELECT_PID && (__u32)task->tgid != selection.pid)
		return false;
	if (selection.select & NC_TRACE_SELECT_COMM)
		for (int i = 0; i < 16; i++) {
			if (task->group_leader->comm[i] != selection.comm[i])
				return false;
			if (!selection.comm[i])
				break;
		}
	if (selection.select & NC_TRACE_SELECT_CGROUP &&
	    bpf_get_current_ancestor_cgroup_id(selection.cgroup_level) != selection.cgroup_id)
		return false;
	if (selection.select & NC_TRACE_SELECT_NETNS) {
		const struct nsproxy *spaces = task->nsproxy;

		if (!spaces || spaces->net_ns->ns.inum != selection.netns)
			return false;
	}
	return true;
}

#endif
