/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the connect policy does with a connection, whatever its hook: what the rules say, and what is counted
 * and told about it.
 */
#ifndef NETCTL_LIB_POLICY_DECIDE_H
#define NETCTL_LIB_POLICY_DECIDE_H

#include <netctl/lib/policy/classify.h>
#include <netctl/lib/policy/tell.h>

static __always_inline const struct nc_policy_segment *nc_policy_in_force(void)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&root, &zero);

	return map ? bpf_map_lookup_elem(map, &zero) : NULL;
}

__noinline int nc_policy_limit(const struct nc_policy_segment *first, __u32 rule_id, __u32 action)
{
	struct nc_limit_key key = { .rule_id = rule_id };
	struct nc_limit_state *state = bpf_map_lookup_elem(&limits, &key);

	if (!state || !first)
		return NC_LIMIT_FAILED;
	return nc_take(&state->arrival_ns, bpf_ktime_get_ns(), nc_any_word(first, action + 2),
		       nc_any_word(first, action + 3));
}

#define NC_POLICY_ASTRAY 0xfffffffdu /* in the place of a rule's position */

/*
 * Fills in who asks, and decides. `deferring`: the cgroup layer will be asked about this connection
 * as well; what must happen once only (limits, events) is left to it unless this layer denies.
 * Returns whether to deny.
 */
static __always_inline bool nc_decide(const struct nc_policy_segment *first, struct nc_subject *s,
				      enum nc_policy_hook hook, bool deferring)
{
	const struct nc_policy_head *head = nc_head(first);
	__u32 layer = hook >= NC_HOOK_LSM_CONNECT ? NC_LAYER_LSM : NC_LAYER_CGROUP;
	struct nc_decision d = { .hook = hook, .rule_id = NC_NO_RULE };
	struct nc_policy_stats *stats;
	__u32 flags = 0, position;
	bool would_deny;

	position =
		s->has & NC_SUBJECT_GOES_ASTRAY ? NC_POLICY_ASTRAY : nc_policy_classify(first, s);
	stats = nc_policy_stats_of_cpu();
	if (!stats)
		return true; /* not to be had: an array has its elements */
	if (position == NC_NO_RULE) {
		d.verdict = head->default_verdict;
		d.reason = NC_POLICY_BY_DEFAULT;
		NC_COUNT(stats->by_default[layer]);
	} else if (unlikely(position == NC_POLICY_ASTRAY)) {
		d.verdict = NC_POLICY_DENY;
		d.reason = NC_POLICY_BY_ASTRAY;
		NC_COUNT(stats->astray[layer]);
	} else if (unlikely(position >= head->rules)) {
		d.verdict = NC_POLICY_DENY;
		d.reason = NC_POLICY_BY_FAULT;
		NC_COUNT(stats->failed[layer]);
	} else {
		__u32 action = head->actions + position * NC_ACTION_WORDS;
		__u64 names = nc_any_word(first, action), does = nc_any_word(first, action + 1);

		d.rule_id = names;
		d.verdict = NC_ACTION_VERDICT(does);
		flags = NC_ACTION_FLAGS(does);
		if (flags & NC_POLICY_LIMIT && !deferring &&
		    nc_policy_limit(first, d.rule_id, action) != NC_LIMIT_WITHIN) {
			d.verdict = NC_POLICY_DENY;
			d.reason = NC_POLICY_BY_LIMIT;
			NC_COUNT(stats->over_limit[layer]);
		}
		nc_count_policy_rule(names >> 32, layer, d.reason == NC_POLICY_BY_LIMIT);
	}

	would_deny = d.verdict == NC_POLICY_DENY;
	d.enforced = !(would_deny && head->mode == NC_POLICY_MODE_AUDIT);
	if (!would_deny)
		NC_COUNT(stats->allowed[layer]);
	else if (d.enforced)
		NC_COUNT(stats->denied[layer]);
	else
		NC_COUNT(stats->would_deny[layer]);
	if (deferring && !(would_deny && d.enforced))
		return false;
	/* Not what a rule refuses: to propose a rule that allows it would undo that one. */
	if (would_deny && !d.enforced && d.reason == NC_POLICY_BY_DEFAULT)
		nc_remember(s, stats);
	if (d.verdict != NC_POLICY_ALLOW || flags & NC_POLICY_LOG)
		nc_tell_event(head, s, &d, stats);
	return would_deny && d.enforced;
}

#endif
