/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who asks: the task that runs, not the one that made the socket.
 */
#ifndef NETCTL_LIB_POLICY_WHO_H
#define NETCTL_LIB_POLICY_WHO_H

#include <netctl/lib/policy/kernel.h>
#include <netctl/lib/policy/subject.h>

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

#endif
