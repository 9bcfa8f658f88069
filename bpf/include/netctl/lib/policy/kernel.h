/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's structs, as far as the connect policy looks at them; places are found at load time.
 */
#ifndef NETCTL_LIB_POLICY_KERNEL_H
#define NETCTL_LIB_POLICY_KERNEL_H

#include <netctl/lib/bpf.h>

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
	int skc_bound_dev_if;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock___nc {
	struct sock_common___nc __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	struct sock_cgroup_data___nc sk_cgrp_data;
};

struct inet_sock___nc {
	__u32 uc_index;
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

static __always_inline struct task_struct___nc *nc_task(void)
{
	return (void *)bpf_get_current_task_btf();
}

#endif
