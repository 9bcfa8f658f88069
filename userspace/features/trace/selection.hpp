// SPDX-License-Identifier: GPL-2.0-only
//
// Which sockets or processes an instrument looks at: the same options for all of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "core/address.hpp"
#include "core/command.hpp"
#include "core/result.hpp"
#include "features/trace/container.hpp"

namespace netctl::trace {

struct Selection {
    std::uint32_t pid = 0; ///< 0: all
    std::string comm;      ///< empty: all
    std::string cgroup;    ///< path; empty: all
    std::string container; ///< see Container::is_called; `any`; empty: also what is in none
    std::string netns;     ///< name or path; empty: all
    std::vector<std::uint16_t> ports; ///< host order; empty: all
    std::vector<Prefix> sources;      ///< of local addresses; empty: all
    std::vector<Prefix> destinations; ///< of remote addresses; empty: all
};

/// --pid, --comm, --cgroup, --container, --port, --src, --dst.
std::vector<Option> selection_options();
/// Those of them that are about processes.
std::vector<Option> task_selection_options();
/// What they say, and the global --netns. The error names what is wrong with which.
Result<Selection> parse_selection(const Arguments& arguments, const Context& context);

/// Makes it a constant of an object that is made of lib/trace.h or lib/trace_task.h. Before loading.
Result<> select_before_load(const bpf::Object& object, const Selection& selection);
/// Fills the object's maps with what is listed. After loading, before attaching.
Result<> select_after_load(const bpf::Object& object, const Selection& selection);
/// What the kernel does not look at: whether `container`, null for none, is wanted.
bool container_selected(const Selection& selection, const Container* container);

/// --pid: 0 if it is not given; a process that is not there is an error.
Result<std::uint32_t> parse_pid(const Arguments& arguments);
bool process_exists(std::uint32_t pid);
/// --comm: empty if it is not given.
Result<std::string> parse_comm(const Arguments& arguments);
/// --buffer, a power of two in MiB, in bytes; 16 MiB if it is not given.
Result<std::uint32_t> parse_ring_bytes(const Arguments& arguments);

} // namespace netctl::trace
