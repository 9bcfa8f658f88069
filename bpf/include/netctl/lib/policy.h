/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the connect policy does with a connection, whatever its hook: who asks (the task that runs,
 * not the one that made the socket), what the rules say, and what is counted and told about it.
 *
 * Counters are raised by atomic additions although they are per CPU: these programs can be preempted.
 */
#ifndef NETCTL_LIB_POLICY_H
#define NETCTL_LIB_POLICY_H

#include <netctl/lib/bpf.h>

#include <bpf/bpf_core_read.h>

#include <netctl/lib/limit.h>
#include <netctl/lib/policy_classify.h>

/* ---- the kernel's structs, as far as they are looked at; places are found at load time ---- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node___nc {
	__u64 id;
	const char *name;
};

struct cgroup___nc {
	int level;
	struct kernfs_node___nc *kn;
	struct cgroup___nc *ancestors[1];
};

struct css_set___nc {
	struct cgroup___nc *dfl_cgrp;
};

struct super_block___nc {
	__u32 s_dev;
};

struct inode___nc {
	struct super_block___nc *i_sb;
	unsigned long i_ino;
};

struct qstr___nc {
	const unsigned char *name;
};

struct dentry___nc {
	struct qstr___nc d_name;
};

struct path___nc {
	struct dentry___nc *dentry;
};

struct file___nc {
	struct inode___nc *f_inode;
	struct path___nc f_path;
};

struct mm_struct___nc {
	struct file___nc *exe_file;
};

struct cred___nc {
	struct {
		__u32 val;
	} uid, gid;
};

struct task_struct___nc {
	const struct cred___nc *cred;
	int pid;
	int tgid;
	struct mm_struct___nc *mm;
	struct css_set___nc *cgroups;
};

struct sock_cgroup_data___nc {
	struct cgroup___nc *cgroup;
};

struct sock_common___nc {
	unsigned short skc_family;
	__u16 skc_num;
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock___nc {
	struct sock_common___nc __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	struct sock_cgroup_data___nc sk_cgrp_data;
};

struct socket___nc {
	struct sock___nc *sk;
};

struct msghdr___nc {
	void *msg_name;
	int msg_namelen;
	unsigned int msg_flags;
};

#pragma clang attribute pop

/* ---- maps ---- */

NC_BTF(nc_policy_event);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_policy_stats);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_COUNTER_CHUNKS);
	__type(key, __u32);
	__array(values, struct nc_map_policy_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct nc_policy_seen);
	__type(value, struct nc_policy_seen_value);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * NC_POLICY_MAX_RULES);
	__type(key, struct nc_policy_cgroup);
	__type(value, struct nc_policy_node);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct nc_policy_cached);
	__type(value, __u64);
} cgroup_rows SEC(".maps");

/* Not used by the programs, but kept with them: the texts of the rules. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct nc_map_texts);
} texts SEC(".maps");

static __u64 log_arrival;

/* ---- who asks ---- */

static __always_inline struct task_struct___nc *nc_task(void)
{
	return (void *)bpf_get_current_task_btf();
}

static __always_inline struct cgroup___nc *nc_ancestor(struct cgroup___nc *cgroup, int level)
{
	struct cgroup___nc *ancestor = NULL;

	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)cgroup + bpf_core_field_offset(cgroup->ancestors) +
				      level * sizeof(void *));
	return ancestor;
}

/* Whether a cgroup is `id`, which is `level` below the root, or below that one. */
static __always_inline bool nc_in_scope(struct cgroup___nc *cgroup, __u64 id, __u32 level)
{
	struct cgroup___nc *ancestor;

	if (!id)
		return true;
	if (!cgroup || cgroup->level < (int)level || level > NC_CGROUP_DEPTH)
		return false;
	ancestor = nc_ancestor(cgroup, level);
	return ancestor && BPF_CORE_READ(ancestor, kn, id) == id;
}

/* Follows the names of a cgroup's path from the root, as far as rules name them. They are compared
 * by name and not by id, so that a rule holds for a service that has been started anew. */
__noinline __u64 nc_walk_cgroup(const struct nc_policy_head *head)
{
	struct cgroup___nc *cgroup = nc_task()->cgroups->dfl_cgrp;
	struct nc_policy_cgroup key = {};
	__u64 row;
	int level;

	if (!head || !cgroup)
		return 0;
	row = head->cgroup_root;
	key.epoch = head->epoch;
	for (level = 1; level <= NC_CGROUP_DEPTH; level++) {
		struct nc_policy_node *node;
		struct cgroup___nc *ancestor;

		if (level > cgroup->level)
			break;
		ancestor = nc_ancestor(cgroup, level);
		if (!ancestor)
			return 0;
		__builtin_memset(key.name, 0, sizeof(key.name));
		if (bpf_probe_read_kernel_str(key.name, sizeof(key.name),
					      BPF_CORE_READ(ancestor, kn, name)) < 0)
			return 0;
		node = bpf_map_lookup_elem(&cgroups, &key);
		if (!node)
			break;
		key.parent = node->node;
		row = node->row;
	}
	return row;
}

/* The row of a cgroup whose bucket does not have it. */
__noinline __u64 nc_find_cgroup_row(struct nc_policy_segment *first, __u64 id, __u32 bucket)
{
	struct nc_policy_cached key = { .cgroup_id = id };
	__u64 *known, row, i;

	if (!first)
		return 0;
	key.epoch = nc_head(first)->generation;
	known = bpf_map_lookup_elem(&cgroup_rows, &key);
	if (known)
		return *known;
	row = nc_walk_cgroup(nc_head(first));
	if (!row)
		return 0;
	for (i = 0; i < NC_CGROUP_WAYS; i++) {
		__u32 at = (bucket + 2 * i) % NC_SEGMENT_WORDS;
		__u64 owner = __sync_val_compare_and_swap(&first->words[at], 0, id);

		if (!owner || owner == id) {
			first->words[(bucket + 2 * i + 1) % NC_SEGMENT_WORDS] = row;
			return row;
		}
	}
	bpf_map_update_elem(&cgroup_rows, &key, &row, BPF_ANY);
	return row;
}

static __always_inline __u64 nc_cgroup_row(const struct nc_policy_segment *first,
					   struct cgroup___nc *cgroup)
{
	__u64 id, row;
	__u32 bucket, i;

	if (!cgroup)
		return 0;
	id = cgroup->kn->id;
	bucket = nc_head(first)->cgroup_rows + id % NC_CGROUP_BUCKETS * NC_CGROUP_WAYS * 2;
	for (i = 0; i < NC_CGROUP_WAYS; i++) {
		if (nc_word(first, bucket + 2 * i, true) != id)
			continue;
		row = nc_word(first, bucket + 2 * i + 1, true);
		if (row)
			return row;
	}
	return nc_find_cgroup_row((struct nc_policy_segment *)first, id, bucket);
}

/* Kernel threads have no executable: device 0, which no file has. */
static __always_inline struct file___nc *nc_exe_file(struct task_struct___nc *task)
{
	struct mm_struct___nc *mm = task->mm;

	return mm ? mm->exe_file : NULL;
}

struct nc_exe {
	__u32 device;
	__u64 inode;
};

static __always_inline struct nc_exe nc_exe_of(struct task_struct___nc *task)
{
	struct file___nc *file = nc_exe_file(task);
	struct nc_exe exe = {};
	struct inode___nc *inode;

	if (!file)
		return exe;
	inode = file->f_inode;
	if (!inode)
		return exe;
	exe.inode = inode->i_ino;
	if (inode->i_sb)
		exe.device = inode->i_sb->s_dev;
	return exe;
}

static __always_inline void nc_set_exe(struct nc_subject *s, __u32 dev, __u64 inode)
{
	s->word[NC_WORD_EXE] = (__u64)dev << 32 | inode >> 32;
	s->word[NC_WORD_EXE + 1] = inode << 32;
}

static __always_inline void nc_set_owner(struct nc_subject *s, __u32 uid, __u32 gid)
{
	s->word[NC_WORD_OWNER] = (__u64)uid << 32 | gid;
}

static __always_inline void nc_ask_who(const struct nc_policy_segment *first, struct nc_subject *s,
				       __u32 kinds)
{
	struct task_struct___nc *task = nc_task();

	/* What bpf_get_current_uid_gid() returns, without its four calls. */
	if (kinds & (1 << NC_SUBJECT_UID | 1 << NC_SUBJECT_GID))
		nc_set_owner(s, task->cred->uid.val, task->cred->gid.val);
	if (kinds & 1 << NC_SUBJECT_EXE) {
		const struct nc_exe id = nc_exe_of(task);

		nc_set_exe(s, id.device, id.inode);
	}
	if (kinds & 1 << NC_SUBJECT_CGROUP)
		s->word[NC_WORD_CGROUP] = nc_cgroup_row(first, task->cgroups->dfl_cgrp);
}

/* ---- what it asks for ---- */

/* 0.0.0.0 is this host: the address that the socket is bound to, else loopback. */
static __always_inline void nc_to_ipv4(struct nc_subject *s, __be32 address, __be32 source)
{
	s->has |= 1 << NC_SUBJECT_DST;
	s->word[NC_WORD_DST] = (__u64)bpf_ntohl(address ?: source ?: bpf_htonl(0x7f000001)) << 32;
}

/* A mapped address is IPv4. :: is this host, by IPv4 if the socket is bound to a mapped address. */
static __always_inline void nc_to_ipv6(struct nc_subject *s, const __be32 *address,
				       const __be32 *source)
{
	if (!address[0] && !address[1] && address[2] == bpf_htonl(0xffff)) {
		nc_to_ipv4(s, address[3], 0);
		return;
	}
	if (!address[0] && !address[1] && !address[2] && !address[3]) {
		if (!source[0] && !source[1] && source[2] == bpf_htonl(0xffff))
			nc_to_ipv4(s, 0, 0);
		else
			s->word[NC_WORD_DST + 1] = 1;
		return;
	}
	s->word[NC_WORD_DST] = (__u64)bpf_ntohl(address[0]) << 32 | bpf_ntohl(address[1]);
	s->word[NC_WORD_DST + 1] = (__u64)bpf_ntohl(address[2]) << 32 | bpf_ntohl(address[3]);
}

#define NC_PROTO_TCP 6
#define NC_PROTO_UDP 17
#define NC_PROTO_SMC 256
#define NC_PROTO_MPTCP 262

static __always_inline __u32 nc_protocol_of(const struct nc_subject *s)
{
	return s->word[NC_WORD_SERVICE] >> 24 & 0xff;
}

static __always_inline void nc_set_protocol(struct nc_subject *s, __u32 protocol, __u16 sport,
					    __u16 dport)
{
	__u64 word;

	/* Both speak TCP to the other side. */
	if (protocol == NC_PROTO_MPTCP || protocol == NC_PROTO_SMC)
		protocol = NC_PROTO_TCP;
	word = (__u64)(protocol > 255 ? 255 : protocol) << 24;
	switch (protocol) {
	case NC_PROTO_TCP:
	case NC_PROTO_UDP:
	case 33:  /* DCCP */
	case 132: /* SCTP */
	case 136: /* UDP-Lite */
		word |= (__u64)dport << 48 | (__u64)sport << 32;
		s->has |= 1 << NC_SUBJECT_DPORT | (__u64) !!sport << NC_SUBJECT_SPORT;
	}
	/* Unknown to the verifier, which would look at all that follows once for each of these ways. */
	s->word[NC_WORD_SERVICE] = word ^ nc_unknown;
	s->has ^= nc_unknown;
}

/* ---- what is told about it ---- */

static __always_inline struct nc_policy_stats *nc_policy_stats_of_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

#define NC_COUNT(where) __sync_fetch_and_add(&(where), 1)

static __always_inline void nc_count_policy_rule(__u32 slot, __u32 layer, bool over)
{
	__u32 chunk = slot / NC_COUNTER_CHUNK, index = slot % NC_COUNTER_CHUNK;
	struct nc_policy_counter *counter;
	void *map;

	map = bpf_map_lookup_elem(&counters, &chunk);
	if (!map)
		return;
	counter = bpf_map_lookup_elem(map, &index);
	if (!counter)
		return;
	if (over)
		NC_COUNT(counter->over[layer & 1]);
	else
		NC_COUNT(counter->matched[layer & 1]);
}

struct nc_decision {
	__u32 rule_id;
	__u8 verdict; /* enum nc_policy_verdict */
	__u8 reason;  /* enum nc_policy_reason */
	__u8 hook;
	bool enforced;
};

static __always_inline void nc_exe_name(char *name, struct task_struct___nc *task)
{
	struct file___nc *file = nc_exe_file(task);

	name[0] = 0;
	if (file && file->f_path.dentry)
		bpf_probe_read_kernel_str(name, NC_POLICY_EXE_NAME,
					  file->f_path.dentry->d_name.name);
}

/* In the form of addresses; IPv4 is the first word. */
static __always_inline void nc_put_destination(__be32 *dst, const struct nc_subject *s)
{
	dst[0] = bpf_htonl(s->word[NC_WORD_DST] >> 32);
	dst[1] = bpf_htonl(s->word[NC_WORD_DST]);
	dst[2] = bpf_htonl(s->word[NC_WORD_DST + 1] >> 32);
	dst[3] = bpf_htonl(s->word[NC_WORD_DST + 1]);
}

__noinline int nc_tell(const struct nc_policy_head *head, const struct nc_subject *s,
		       const struct nc_decision *d, struct nc_policy_stats *stats)
{
	struct task_struct___nc *task = nc_task();
	const struct nc_exe exe = nc_exe_of(task);
	struct nc_policy_event *event;

	if (!head || !s || !d || !stats)
		return 0;
	if (head->log_interval && nc_take(&log_arrival, bpf_ktime_get_ns(), head->log_interval,
					  head->log_burst) != NC_LIMIT_WITHIN) {
		NC_COUNT(stats->log_suppressed);
		return 0;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		NC_COUNT(stats->log_lost);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_boot_ns();
	event->generation = head->generation;
	event->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	event->exe_inode = exe.inode;
	event->exe_dev = exe.device;
	event->rule_id = d->rule_id;
	event->pid = task->pid;
	event->tgid = task->tgid;
	event->uid = task->cred->uid.val;
	event->gid = task->cred->gid.val;
	nc_put_destination(event->dst, s);
	event->dport = s->word[NC_WORD_SERVICE] >> 48;
	event->sport = s->word[NC_WORD_SERVICE] >> 32;
	event->family = s->has & 1 << NC_SUBJECT_DST ? 4 : 6;
	event->proto = nc_protocol_of(s);
	event->verdict = d->verdict;
	event->reason = d->reason;
	event->hook = d->hook;
	event->enforced = d->enforced;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	nc_exe_name(event->exe_name, task);
	bpf_ringbuf_submit(event, 0);
	NC_COUNT(stats->log_written);
	return 0;
}

#define NC_EEXIST 17

/* Remembers what would have been denied, for `policy learn`. */
__noinline int nc_remember(const struct nc_subject *s, struct nc_policy_stats *stats)
{
	struct task_struct___nc *task = nc_task();
	const struct nc_exe exe = nc_exe_of(task);
	struct nc_policy_seen_value *known, fresh = {};
	struct nc_policy_seen key = {};
	long failure;

	if (!s || !stats)
		return 0;
	key.cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	key.exe_inode = exe.inode;
	key.exe_dev = exe.device;
	key.uid = task->cred->uid.val;
	key.gid = task->cred->gid.val;
	nc_put_destination(key.dst, s);
	key.dport = s->word[NC_WORD_SERVICE] >> 48;
	key.family = s->has & 1 << NC_SUBJECT_DST ? 4 : 6;
	key.proto = nc_protocol_of(s);
	known = bpf_map_lookup_elem(&seen, &key);
	if (known) {
		NC_COUNT(known->count);
		known->last_ns = bpf_ktime_get_boot_ns();
		return 0;
	}
	fresh.count = 1;
	fresh.last_ns = bpf_ktime_get_boot_ns();
	fresh.tgid = task->tgid;
	bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
	nc_exe_name(fresh.exe_name, task);
	failure = bpf_map_update_elem(&seen, &key, &fresh, BPF_NOEXIST);
	if (failure && failure != -NC_EEXIST) /* another CPU was first */
		NC_COUNT(stats->seen_lost);
	return 0;
}

/* ---- the decision ---- */

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

	position = nc_policy_classify(first, s);
	stats = nc_policy_stats_of_cpu();
	if (!stats)
		return true; /* not to be had: an array has its elements */
	if (position == NC_NO_RULE) {
		d.verdict = head->default_verdict;
		d.reason = NC_POLICY_BY_DEFAULT;
		NC_COUNT(stats->by_default[layer]);
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
	if (would_deny && !d.enforced)
		nc_remember(s, stats);
	if (d.verdict != NC_POLICY_ALLOW || flags & NC_POLICY_LOG)
		nc_tell(head, s, &d, stats);
	return would_deny && d.enforced;
}

#endif
