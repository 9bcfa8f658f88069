// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XDP packet filter. What it does with a packet is in lib/ruleset.h; here is what only XDP has.
 */
#include <netctl/lib/ctx_xdp.h>
#include <netctl/lib/ruleset.h>

#include <netctl/lib/reject.h>
#include <netctl/lib/syncookie.h>

/* Targets of `redirect`, by nc_action::target. The kernel takes out interfaces that vanish. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} devices SEC(".maps");

SEC("xdp.frags")
int xdp_filter(struct xdp_md *ctx)
{
	struct nc_judgement j = {};

	nc_judge(ctx, &j);
	if (j.verdict == NC_VERDICT_REDIRECT && !simulate && j.action &&
	    bpf_redirect_map(&devices, j.action->target, XDP_DROP) != XDP_REDIRECT) {
		j.verdict = NC_VERDICT_DROP;
		j.reason = NC_REASON_FAILED;
	}
	nc_account(ctx, &j);

	switch (j.verdict) {
	case NC_VERDICT_PASS:
		return XDP_PASS;
	case NC_VERDICT_TX:
		return XDP_TX;
	case NC_VERDICT_REDIRECT:
		return XDP_REDIRECT;
	case NC_VERDICT_REJECT:
		return nc_reject(ctx, &j.packet) ? XDP_TX : XDP_DROP;
	case NC_VERDICT_SYNCOOKIE:
		return nc_syncookie(ctx, &j.packet,
				    actions_used & NC_ACTION_OVER_SYNCOOKIE &&
						    j.reason == NC_REASON_LIMIT ?
					    XDP_DROP :
					    XDP_PASS);
	default:
		return XDP_DROP;
	}
}

char LICENSE[] SEC("license") = "GPL";
