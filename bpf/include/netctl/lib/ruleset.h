/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every packet filter does with a packet, whatever its hook:
 *
 *   nc_judge()    parse, look up sets, classify, police  -> struct nc_judgement
 *   (the hook carries the verdict out, and may find that it cannot)
 *   nc_account()  counters, log, statistics; or the `result` of a simulation
 *
 * A commit loads a new program with new constants and tables, and swaps it in. What must outlive it
 * (stats, counters, limits, limit_src, events) is handed to the new program. A commit that changes few
 * of many rules leaves the program and fills the slot of `changes`.
 */
#ifndef NETCTL_LIB_RULESET_H
#define NETCTL_LIB_RULESET_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before ruleset.h"
#endif

#include <netctl/abi/rule.h>
#include <netctl/lib/changes.h>
#include <netctl/lib/classify.h>
#include <netctl/lib/limit.h>
#include <netctl/lib/log.h>
#include <netctl/lib/over.h>
#include <netctl/lib/parse.h>
#include <netctl/lib/sets.h>
#include <netctl/lib/stats.h>

/* Bits NC_FIELD_…: what some rule looks at. */
const volatile __u32 wanted;
/* Bits NC_ACTION_…: what some rule does; all, unless told otherwise. */
const volatile __u32 actions_used = ~0u;
const volatile __u32 default_verdict = NC_VERDICT_PASS;
const volatile __u32 unparsed_verdict = NC_VERDICT_PASS;
/* Whether the slot of `changes` may be filled: a program of few rules is made anew instead. */
const volatile __u32 may_change = 1;
/* Tell in `result` what would happen, and touch nothing else. Limits count as not reached. */
const volatile __u32 simulate;

/* Index = position of the rule, and behind them the actions of `changes`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_action);
} actions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_result);
} result SEC(".maps");

/* Not used by the program, but kept with it: what userspace needs to list and edit the rules. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rule_text);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_point);
} point SEC(".maps");

struct nc_judgement {
	struct nc_packet packet;
	__u64 set_bits;
	__u32 position; /* of the rule in `actions`, or NC_NO_RULE */
	__u8 verdict;	/* enum nc_verdict */
	__u8 reason;	/* enum nc_reason */
	__u8 unparsed;	/* enum nc_unparsed, if that is the reason */
	bool limit_failed;
	const struct nc_action *action; /* of the rule, or NULL */
};

/* The first rule that matches, by its index in `actions`. */
static __always_inline __u32 nc_first_rule(const struct nc_packet *packet, __u64 set_bits)
{
	__u32 first = nc_classify(packet, set_bits);
	const struct nc_changes *block;

	if (simulate || !may_change)
		return first;
	block = nc_changes_in_force();
	return unlikely(block) && first != NC_CLASSIFY_ERROR ? nc_changed(block, packet, first) :
							       first;
}

/* A simulation asks the kernel for nothing: it is told what there is. */
static __always_inline void nc_be_told(struct nc_packet *packet)
{
	__u32 zero = 0;
	const struct nc_result *result_of = bpf_map_lookup_elem(&result, &zero);

	if (!result_of || !(packet->has & NC_HAS_PROTO))
		return;
	packet->has |= result_of->told.has;
	packet->socket = result_of->told.socket;
	packet->ct = result_of->told.ct;
	packet->ct_mark = result_of->told.ct_mark;
}

static __always_inline void nc_judge(nc_ctx *ctx, struct nc_judgement *j)
{
	int parsed;

	nc_clear(&j->packet);
	parsed = nc_parse(ctx, nc_ctx_length(ctx), simulate ? ~0u : wanted, &j->packet);
	j->position = NC_NO_RULE;
	if (unlikely(parsed != NC_PARSED))
		goto unparsed;
	if (simulate)
		nc_be_told(&j->packet);
	else if (wanted & NC_WANT_CT)
		nc_track_leaving(ctx, &j->packet);
	/* ^: what follows is not to be looked at anew for each constant that they may be (nc_fault). */
	if (n_set_uses)
		j->set_bits = nc_set_bits(&j->packet) ^ nc_zero;
	j->position = nc_first_rule(&j->packet, j->set_bits);
	if (j->position == NC_NO_RULE) {
		j->verdict = default_verdict;
		j->reason = NC_REASON_DEFAULT;
		return;
	}
	j->action = bpf_map_lookup_elem(&actions, &j->position);
	if (unlikely(!j->action)) {
		parsed = NC_UNPARSED_ENGINE;
		goto unparsed;
	}
	j->verdict = j->action->verdict;
	j->reason = NC_REASON_RULE;
	if (actions_used & NC_ACTION_LIMIT && j->action->flags & NC_ACTION_LIMIT && !simulate) {
		enum nc_limit_result limited = nc_limit(j->action, &j->packet);

		if (limited != NC_LIMIT_WITHIN) {
			j->verdict = actions_used & NC_ACTION_OVER_SYNCOOKIE &&
						     j->action->flags & NC_ACTION_OVER_SYNCOOKIE ?
					     NC_VERDICT_SYNCOOKIE :
					     NC_VERDICT_DROP;
			j->reason = NC_REASON_LIMIT;
			j->limit_failed = limited == NC_LIMIT_FAILED;
			if (actions_used & NC_ACTION_OVER_ADD &&
			    j->action->flags & NC_ACTION_OVER_ADD && limited == NC_LIMIT_OVER)
				nc_over(&j->packet, j->set_bits, j->action);
		}
	}
	return;

unparsed:
	j->position = NC_NO_RULE;
	j->verdict = unparsed_verdict;
	j->reason = NC_REASON_UNPARSED;
	j->unparsed = parsed;
}

static __always_inline void nc_tell(const struct nc_judgement *j)
{
	__u32 zero = 0;
	struct nc_result *told = bpf_map_lookup_elem(&result, &zero);

	if (!told)
		return;
	told->position = j->position;
	told->verdict = j->verdict;
	told->reason = j->reason;
	told->unparsed = j->unparsed;
	told->set_bits = j->set_bits;
	told->packet = j->packet;
}

static __always_inline void nc_account(nc_ctx *ctx, const struct nc_judgement *j)
{
	__u64 bytes = j->packet.len;
	struct nc_stats *s;

	if (simulate) {
		nc_tell(j);
		return;
	}
	s = nc_stats_of_cpu();
	if (!s)
		return;
	s->packets++;
	s->bytes += bytes;
	if (j->verdict < NC_VERDICT_REJECT)
		s->verdicts[j->verdict]++;

	switch (j->reason) {
	case NC_REASON_DEFAULT:
		s->default_packets++;
		s->default_bytes += bytes;
		return;
	case NC_REASON_UNPARSED:
		if (j->unparsed < NC_UNPARSED_REASONS)
			s->unparsed[j->unparsed]++;
		return;
	case NC_REASON_LIMIT:
		s->over_limit++;
		s->limit_failed += j->limit_failed;
		break;
	case NC_REASON_FAILED:
		s->redirect_failed++;
		break;
	case NC_REASON_RATE:
		s->over_rate++;
		break;
	}
	if (!j->action)
		return;
	nc_count_rule(j->action->slot, bytes,
		      j->reason == NC_REASON_LIMIT || j->reason == NC_REASON_RATE);
	if (actions_used & NC_ACTION_LOG && j->action->flags & NC_ACTION_LOG)
		nc_log(ctx, s, j->action->rule_id, j->packet.len, j->verdict, j->reason);
}

#endif
