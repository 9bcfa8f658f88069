/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the compiler of connect policies (userspace/features/policy/compile.cpp) and the kernel's
 * lookup (lib/policy/classify.h) agree on. Private to one version of netctl. The structure is told
 * in lib/policy/classify.h.
 *
 * A generation of rules is one sequence of 64-bit words, cut into segments. The first one begins
 * with struct nc_policy_head and hangs in the only slot of the map `root`.
 */
#ifndef NETCTL_ABI_POLICY_TABLES_H
#define NETCTL_ABI_POLICY_TABLES_H

#include "policy.h"

#define NC_SEGMENT_WORDS (1u << 18) /* 2 MiB */
#define NC_MAX_SEGMENTS 32	    /* of one generation */

struct nc_policy_segment {
	__u64 words[NC_SEGMENT_WORDS];
};

/*
 * What rules can look at: first what a connection is to, then who makes it. Each is answered with a
 * row of bits: which rules its value leaves possible.
 */
enum nc_policy_input {
	NC_SUBJECT_DST = 0,
	NC_SUBJECT_SPORT = 1,
	NC_SUBJECT_DPORT = 2,
	NC_SUBJECT_PROTO = 3,
	NC_SUBJECT_UID = 4,
	NC_SUBJECT_GID = 5,
	NC_SUBJECT_EXE = 6,
	NC_SUBJECT_CGROUP = 7, /* not looked up in a trie */
	NC_SUBJECTS = 8,
};
#define NC_ASKS_WHO                                                                                \
	(1 << NC_SUBJECT_UID | 1 << NC_SUBJECT_GID | 1 << NC_SUBJECT_EXE | 1 << NC_SUBJECT_CGROUP)

/* Words in which the values stand, as tries look at them: from the most significant bit on. */
enum nc_policy_word {
	NC_WORD_DST = 0,     /* two words: IPv4 in the upper half of the first */
	NC_WORD_EXE = 2,     /* two words: 32 bits of device, 64 of inode */
	NC_WORD_SERVICE = 4, /* dport, sport, 8 bits of protocol */
	NC_WORD_OWNER = 5,   /* uid, gid */
	NC_WORD_CGROUP = 6,  /* not a key but the row itself */
	NC_WORD_HAS = 7,     /* not a key: the programs' notes */
	NC_SUBJECT_WORDS = 8,
};

/*
 * How the row for one input is found: by a path trie (abi/crossing.h), from this entry on. `entry[1]` is
 * for subjects that have the input. Others have a leaf; for DST, [0] is the trie for IPv6 and [1] that
 * for IPv4. Zeroes: no rule looks at the input, or it is the cgroup.
 *
 * The tries of SPORT, DPORT and PROTO have no other nodes than those for eight bits, from the top on,
 * and skip nothing; the programs count on it.
 */
struct nc_policy_lookup {
	__u64 entry[2];
	__u32 word;  /* enum nc_policy_word: the first of the key's two words */
	__u32 shift; /* bits of that word which stand before the key */
};

/* The value of a trie's leaf: where the row stands, which of its summaries are not zero, and its first
 * rule. */
#define NC_ROW_PLACE(row) ((__u32)(row)&0xffffff)
#define NC_ROW_SUMMARIES(row) ((__u32)((row) >> 24) & 0xffff)
#define NC_ROW_FIRST(row) ((__u32)((row) >> 40) & 0xffff)
#define NC_ROW_LEAF(place, summaries, first) ((place) | (summaries) << 24 | (first) << 40)

/* Pairs of field and set that the rules of a policy may ask about. */
#define NC_POLICY_SET_USES 64
#define NC_POLICY_NO_SET 0xff

/* One word of a row's summary stands for so many rules. */
#define NC_SUMMARY_RULES 4096
#define NC_MAX_SUMMARIES 16
#define NC_POLICY_MAX_RULES (NC_SUMMARY_RULES * NC_MAX_SUMMARIES)
NC_STATIC_ASSERT(NC_MAX_SEGMENTS *NC_SEGMENT_WORDS <= 1 << 24 && NC_POLICY_MAX_RULES <= 1 << 16,
		 "they fit into a leaf");

/* Names of cgroups are compared as a whole: longer ones cannot be named in rules. */
#define NC_CGROUP_NAME 120
#define NC_CGROUP_DEPTH 32

enum nc_policy_action_flags {
	NC_POLICY_LOG = 1 << 0,
	NC_POLICY_LIMIT = 1 << 1,
	/* NC_ASKS_WHO: which of these inputs the rule looks at, by the bits of enum nc_policy_input */
};

/* Bits 4 to 6 are as in NC_ASKS_WHO. */
enum nc_policy_who {
	NC_WHO_LISTS = 1 << 0, /* it is not, and only the rows tell */
	NC_WHO_NOT_UID = 1 << NC_SUBJECT_UID,
	NC_WHO_NOT_GID = 1 << NC_SUBJECT_GID,
	NC_WHO_NOT_EXE = 1 << NC_SUBJECT_EXE,
};

struct nc_policy_action {
	__u32 rule_id;
	__u32 slot;   /* of the rule's counter */
	__u8 verdict; /* enum nc_policy_verdict */
	__u8 flags;   /* enum nc_policy_action_flags */
	__u8 reserved[2];
	__u8 set_use[4]; /* numbers of its questions about sets; the others are NC_POLICY_NO_SET */
	__u64 limit_interval_ns;
	__u64 limit_burst_ns;
	/* Who the rule is about, where that is one range of users and of groups, and one executable. */
	__u32 uid[2]; /* first and last */
	__u32 gid[2];
	__u64 exe_inode;
	__u32 exe_dev;
	__u32 who; /* enum nc_policy_who */
};
#define NC_ACTION_WORDS 8
NC_STATIC_ASSERT(sizeof(struct nc_policy_action) == NC_ACTION_WORDS * 8, "actions are whole words");

/* Its second word. */
#define NC_ACTION_VERDICT(word) ((__u32)(word)&0xff)
#define NC_ACTION_FLAGS(word) ((__u32)(word) >> 8 & 0xff)
#define NC_ACTION_SETS(word) ((__u32)((word) >> 32))
#define NC_ACTION_NO_SETS 0xffffffffu

struct nc_policy_set_use {
	__u8 field; /* enum nc_field: dst, sport or dport */
	__u8 type;  /* enum nc_set_type */
	__u8 slot;  /* in the outer maps of lib/sets.h */
	__u8 reserved;
	__u32 number; /* nc_set_info::number */
	__u32 row[2]; /* not in the set; in it */
};

/*
 * Rows of cgroups that were asked about, kept with the tables: buckets by the cgroup's id, each with
 * NC_CGROUP_WAYS of these. Both words begin as 0. A program that finds a free one claims it by writing
 * the id in one step, and writes the row then; neither changes again, so whoever reads a row
 * beside its id has the right one, without a lock. New tables begin anew.
 */
struct nc_policy_cgroup_row {
	__u64 cgroup_id;
	__u64 row; /* 0: not known yet */
};
#define NC_CGROUP_WAYS 2
#define NC_CGROUP_BUCKETS 512

/* Offsets count words from the start of the head. Row 0 means that no rule looks there. */
struct nc_policy_head {
	__u32 abi_version;
	__u32 mode;	       /* enum nc_policy_mode */
	__u32 default_verdict; /* enum nc_policy_verdict */
	__u32 layers;	       /* live ones: 1 << enum nc_policy_layer */
	__u64 generation;
	__u64 scope_id;	   /* cgroup that the policy is for, 0: all */
	__u32 scope_level; /* its depth below the root */
	__u32 epoch;	   /* of the keys in `cgroups` that belong to this generation */
	__u32 rules;
	__u32 records; /* used ones of the map `rules` */
	__u32 next_rule_id;
	__u32 log_rate;
	__u64 log_interval;
	__u64 log_burst;
	__u32 texts_slot;   /* of the map `rules` in the outer map `texts` */
	__u32 near;	    /* 1: the tables fit into the first segment */
	__u32 segment_base; /* else all segments are in the outer map `segments`, from here on */
	__u32 summaries;    /* of a row: one for each NC_SUMMARY_RULES */
	__u32 asks;	    /* inputs that rules look at: 1 << enum nc_policy_input */
	__u32 n_set_uses;
	__u32 actions; /* of nc_policy_action, by position */
	__u32 tries;   /* what the bases of trie nodes count from */
	__u32 exes;    /* executables that rules name: n_exes of nc_policy_exe, sorted */
	__u32 n_exes;
	__u32 cgroup_rows; /* nc_policy_cgroup_row; within the first segment */
	__u64 cgroup_root; /* row of a cgroup that is in none of those that rules name */
	struct nc_policy_lookup lookup[NC_SUBJECTS];
	struct nc_policy_set_use set_use[NC_POLICY_SET_USES];
	char scope[256]; /* path of the scope below the mount of cgroup v2 */
};
NC_STATIC_ASSERT(sizeof(struct nc_policy_head) % 8 == 0, "words follow the head");
#define NC_HEAD_WORDS (sizeof(struct nc_policy_head) / 8)

/* Executable files, as the rules' paths led to them when the tables were made. */
struct nc_policy_exe {
	__u64 device; /* major << 20 | minor */
	__u64 inode;
};

/* Map `cgroups`: the cgroups that rules name and those above them, as a tree of names. */
struct nc_policy_cgroup {
	__u32 epoch;
	__u32 parent; /* number of the node above; the root is 0 */
	char name[NC_CGROUP_NAME];
};
struct nc_policy_node {
	__u64 node;
	__u64 row; /* as in a leaf */
};

/* Map `cgroup_rows`: LRU hash, what walking that tree gave for cgroups whose bucket is full. */
struct nc_policy_cached {
	__u64 cgroup_id;
	__u64 epoch;
};

/* What the program `probe` judges (BPF_PROG_TEST_RUN), and what it answers. */
struct nc_policy_question {
	__u32 dst[4]; /* network order */
	__u32 uid;
	__u32 gid;
	__u32 exe_dev;
	__u32 reserved;
	__u64 exe_inode;
	__u64 cgroup_row;
	__u16 sport; /* 0: none */
	__u16 dport;
	__u8 family; /* 4 or 6 */
	__u8 proto;
	__u8 reserved2[2];
};

#endif
