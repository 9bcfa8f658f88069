/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is counted and told about a connection.
 *
 * Counters are raised by atomic additions although they are per CPU: these programs can be preempted.
 */
#ifndef NETCTL_LIB_POLICY_TELL_H
#define NETCTL_LIB_POLICY_TELL_H

#include <netctl/lib/limit.h>
#include <netctl/lib/policy/who.h>

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

/* Not used by the programs, but kept with them: the texts of the rules. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct nc_map_texts);
} texts SEC(".maps");

static __u64 log_arrival;

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

__noinline int nc_tell_event(const struct nc_policy_head *head, const struct nc_subject *s,
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

#endif
