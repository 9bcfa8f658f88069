/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirection: which connections may be redirected. */
#ifndef NETCTL_REDIRECT_RULES_H
#define NETCTL_REDIRECT_RULES_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_state.h"

/* What rules are asked about. */
struct rd_question {
	__u32 bank;
	__u32 family;
	__be32 dst[4];
	__u32 dport;
	__u32 reserved;
	const struct rd_cgroups *cgroups; /* NULL: not known yet */
	__u64 matches; /* bit i: rule i matches, or would if an executable does */
	__u32 verdict; /* enum nc_rd_action */
	__u32 maybe;   /* an allowing rule matches if an unknown does */
	__u32 depends_on_exe;
};

static __always_inline bool prefix_matches(const struct nc_rd_rule *rule, const __be32 *address)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		int bits = (int)rule->prefix_length - 32 * i;
		__u32 mask = bits <= 0 ? 0 : bits >= 32 ? ~0u : ~0u << (32 - bits);

		if ((address[i] ^ rule->dst[i]) & bpf_htonl(mask))
			return false;
	}
	return true;
}

static __always_inline bool under(const __u64 *ids, __u64 cgroup)
{
	for (int i = 0; i < RD_CGROUP_DEPTH; i++)
		if (ids[i] == cgroup)
			return true;
	return false;
}

/* bpf_loop callback: stops at the rule that decides. */
static long ask_rule(__u32 i, struct rd_question *q)
{
	__u32 index = q->bank * NC_RD_RULES + i;
	const struct nc_rd_rule *rule = bpf_map_lookup_elem(&rd_rules, &index);
	bool known = true;

	if (!rule || rule->action == NC_RD_END)
		return 1;
	if (q->dport < rule->dport_low || q->dport > rule->dport_high)
		return 0;
	if (rule->family && (rule->family != q->family || !prefix_matches(rule, q->dst)))
		return 0;
	if (rule->cgroup) {
		if (!q->cgroups)
			known = false;
		else if (!under(q->cgroups->ids[0], rule->cgroup) &&
			 !under(q->cgroups->ids[1], rule->cgroup))
			return 0;
	}
	if (rule->exe_inode) {
		known = false;
		q->depends_on_exe = 1;
	}
	if (i < 64)
		q->matches |= 1ULL << i;
	if (known) {
		q->verdict = rule->action;
		return 1;
	}
	if (rule->action == NC_RD_ALLOW)
		q->maybe = 1;
	return 0;
}

/* Whether a connection is allowed, or may be once executables and cgroups are known. */
static __always_inline bool ask_rules(struct rd_question *q)
{
	q->matches = 0;
	q->verdict = NC_RD_END;
	q->maybe = 0;
	q->depends_on_exe = 0;
	bpf_loop(NC_RD_RULES, ask_rule, q, 0);
	return q->verdict == NC_RD_ALLOW || q->maybe;
}

struct rd_judgement {
	struct nc_rd_pair *pair;
	__u32 bank;
	__u32 verdict;
};

static __always_inline bool runs(const struct nc_rd_process *process, const struct nc_rd_rule *rule)
{
	return process->exe_inode == rule->exe_inode && process->exe_device == rule->exe_device;
}

/* bpf_loop callback over the rules that match but for their executable. */
static long judge_rule(__u32 i, struct rd_judgement *j)
{
	__u32 index = j->bank * NC_RD_RULES + i;
	const struct nc_rd_rule *rule;

	if (i > 63 || !(j->pair->rules & 1ULL << i))
		return 0;
	rule = bpf_map_lookup_elem(&rd_rules, &index);
	if (!rule)
		return 1;
	if (rule->exe_inode && !runs(&j->pair->process[0], rule) &&
	    !runs(&j->pair->process[1], rule))
		return 0;
	j->verdict = rule->action;
	return 1;
}

#endif
