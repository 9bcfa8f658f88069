// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tc classifier, for tcx and clsact, on the way in and out. What it does with a packet is in
 * lib/ruleset.h; here is what only tc has.
 */
#include <netctl/lib/ctx_skb.h>
#include <netctl/lib/ruleset.h>

#include <netctl/lib/dscp.h>
#include <netctl/lib/rate.h>
#include <netctl/lib/reject.h>

static __always_inline void nc_refuse(struct nc_judgement *j, enum nc_reason reason)
{
	j->verdict = NC_VERDICT_DROP;
	j->reason = reason;
}

/* What the rule says besides its verdict. A mirror's copy goes first: it is the packet as it came. */
static __always_inline void nc_act(struct __sk_buff *skb, struct nc_judgement *j)
{
	const struct nc_action *action = j->action;
	struct nc_stats *s = nc_stats_of_cpu();
	__u32 flags = action->flags & actions_used;

	if (!s)
		return;
	if (flags & NC_ACTION_MIRROR && bpf_clone_redirect(skb, action->mirror, 0))
		s->mirror_failed++;
	if (j->verdict == NC_VERDICT_DROP || j->verdict == NC_VERDICT_REJECT)
		return;
	if (flags & NC_ACTION_MARK)
		skb->mark = (skb->mark & ~action->mark_mask) | (action->mark & action->mark_mask);
	if (flags & NC_ACTION_PRIORITY)
		skb->priority = action->priority;
	if (flags & NC_ACTION_DSCP && j->packet.has & (NC_HAS_IPV4 | NC_HAS_IPV6) &&
	    nc_set_dscp(skb, &j->packet, action->dscp))
		s->rewrite_failed++;
	if (j->verdict == NC_VERDICT_REDIRECT) {
		__u32 mtu = 0;

		/* bpf_redirect() does not say that its target is gone; this does. */
		if (bpf_check_mtu(skb, action->target, &mtu, 0, 0) < 0) {
			nc_refuse(j, NC_REASON_FAILED);
			return;
		}
	}
	if (flags & NC_ACTION_RATE) {
		enum nc_rate_result rated = nc_rate(skb, action);

		if (rated == NC_RATE_WITHIN)
			return;
		s->limit_failed += rated == NC_RATE_FAILED;
		nc_refuse(j, NC_REASON_RATE);
	}
}

SEC("tc")
int tc_filter(struct __sk_buff *skb)
{
	struct nc_judgement j = {};

	nc_judge(skb, &j);
	if (!simulate && j.action && j.reason == NC_REASON_RULE)
		nc_act(skb, &j);
	nc_account(skb, &j);

	switch (j.verdict) {
	case NC_VERDICT_PASS:
		return TC_ACT_OK;
	case NC_VERDICT_NEXT:
		return TC_ACT_UNSPEC;
	case NC_VERDICT_REDIRECT:
		if (simulate || !j.action)
			return TC_ACT_REDIRECT;
		return bpf_redirect(j.action->target,
				    j.action->flags & NC_ACTION_TO_INGRESS ? BPF_F_INGRESS : 0);
	case NC_VERDICT_REJECT:
		return nc_reject(skb, &j.packet) ? bpf_redirect(skb->ifindex, 0) : TC_ACT_SHOT;
	default:
		return TC_ACT_SHOT;
	}
}

char LICENSE[] SEC("license") = "GPL";
