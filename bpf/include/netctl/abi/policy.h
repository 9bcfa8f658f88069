/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The connect policy: verdicts, counters and events, map by map. docs/pinned-maps.md says who may
 * write which. Rules are stored as struct nc_rule_text (rule.h).
 */
#ifndef NETCTL_ABI_POLICY_H
#define NETCTL_ABI_POLICY_H

#include "rule.h"
#include "types.h"

enum nc_policy_layer { NC_LAYER_CGROUP = 0, NC_LAYER_LSM = 1, NC_LAYERS = 2 };

enum nc_policy_hook {
	NC_HOOK_CONNECT4 = 0, /* cgroup layer */
	NC_HOOK_CONNECT6 = 1,
	NC_HOOK_SENDMSG4 = 2,
	NC_HOOK_SENDMSG6 = 3,
	NC_HOOK_LSM_CONNECT = 4, /* LSM layer */
	NC_HOOK_LSM_SENDMSG = 5,
	NC_HOOKS = 6,
};

enum nc_policy_verdict { NC_POLICY_ALLOW = 0, NC_POLICY_DENY = 1, NC_POLICY_AUDIT = 2 };

enum nc_policy_mode { NC_POLICY_MODE_ENFORCE = 0, NC_POLICY_MODE_AUDIT = 1 };

/* Why a verdict came about. */
enum nc_policy_reason {
	NC_POLICY_BY_RULE = 0,
	NC_POLICY_BY_DEFAULT = 1, /* no rule matched */
	NC_POLICY_BY_LIMIT = 2,	  /* over the limit of the rule */
	NC_POLICY_BY_FAULT = 3,	  /* a table that leads nowhere: a defect, and denied */
	NC_POLICY_BY_ASTRAY =
		4, /* 0.0.0.0 by an interface: where it goes cannot be known; denied */
};

/* ---- map `counters`: array of maps, each a per-CPU array of NC_COUNTER_CHUNK of these ---- */

struct nc_policy_counter {
	__u64 matched[NC_LAYERS]; /* got the rule's verdict */
	__u64 over[NC_LAYERS];	  /* matched, but were over the rule's limit */
};

/* ---- map `stats`: per-CPU array of one ---- */

struct nc_policy_stats {
	/* Everything that rules were asked about is in one of these three. */
	__u64 allowed[NC_LAYERS];
	__u64 denied[NC_LAYERS];
	__u64 would_deny[NC_LAYERS]; /* allowed only since the mode is audit */
	__u64 by_default[NC_LAYERS]; /* no rule matched */
	__u64 over_limit[NC_LAYERS]; /* denied for being over a rule's limit */
	__u64 failed[NC_LAYERS];     /* denied for a table that leads nowhere */
	__u64 disconnects;	     /* connect to AF_UNSPEC: allowed, no rule is asked */
	__u64 other_family;	     /* neither IPv4 nor IPv6: allowed, no rule is asked */
	__u64 log_written;
	__u64 log_lost;		 /* ring buffer full */
	__u64 log_suppressed;	 /* above the log's rate */
	__u64 seen_lost;	 /* no room in `seen` */
	__u64 astray[NC_LAYERS]; /* denied, since where they go cannot be known */
};

/* ---- map `events`: ring buffer ---- */

#define NC_POLICY_EXE_NAME 64

struct nc_policy_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u64 generation;
	__u64 cgroup_id;
	__u64 exe_inode;
	__u32 exe_dev; /* as the kernel has it: major << 20 | minor */
	__u32 rule_id; /* NC_NO_RULE: the default */
	__u32 pid;     /* of the thread; of the initial namespace */
	__u32 tgid;    /* of the process */
	__u32 uid;
	__u32 gid;
	__be32 dst[4]; /* IPv4 in [0]; normalised */
	__u16 dport;   /* 0 where the protocol has no ports */
	__u16 sport;   /* 0: not bound yet */
	__u8 family;   /* 4 or 6 */
	__u8 proto;
	__u8 verdict;  /* enum nc_policy_verdict */
	__u8 reason;   /* enum nc_policy_reason */
	__u8 hook;     /* enum nc_policy_hook */
	__u8 enforced; /* 0: a denial that the mode audit let pass */
	__u8 reserved[6];
	char comm[16];
	char exe_name[NC_POLICY_EXE_NAME]; /* last part of the executable's path */
};
NC_STATIC_ASSERT(sizeof(struct nc_policy_event) == 168, "nc_policy_event is ABI");

/* ---- map `seen`: LRU hash of what the mode audit let pass against the default, for `policy learn` ---- */

struct nc_policy_seen {
	__u64 cgroup_id;
	__u64 exe_inode;
	__u32 exe_dev;
	__u32 uid;
	__be32 dst[4];
	__u16 dport;
	__u8 family;
	__u8 proto;
	__u32 gid;
};
NC_STATIC_ASSERT(sizeof(struct nc_policy_seen) == 48, "nc_policy_seen has no hidden padding");

struct nc_policy_seen_value {
	__u64 count;
	__u64 last_ns; /* CLOCK_BOOTTIME */
	__u32 tgid;    /* of the last process */
	__u32 reserved;
	char comm[16];
	char exe_name[NC_POLICY_EXE_NAME];
};
NC_STATIC_ASSERT(sizeof(struct nc_policy_seen_value) == 104, "nc_policy_seen_value is ABI");

#endif
