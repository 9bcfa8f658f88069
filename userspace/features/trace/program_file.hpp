// SPDX-License-Identifier: GPL-2.0-only
//
// Programs and libraries by the names that users have for them.
#pragma once

#include <cstdint>
#include <string>

#include "core/fd.hpp"
#include "core/result.hpp"
#include "sys/mapping_watch.hpp"

namespace netctl::trace {

struct ProgramFile {
    Fd file;
    std::string path; ///< as it was found
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
};

/// `name` is a path, or the name of a program in PATH, or of a library, of which `c`, `libc` and `libc.so.6` name the same one.
/// With a `pid`, what that process has mapped comes first, and an empty name is its program. Errors: there is none, it is
/// no file, or there are several.
Result<ProgramFile> find_program_file(const std::string& name, std::uint32_t pid);

/// What a process has mapped. Errors: it, or the process, is gone.
Result<ProgramFile> open_program_file(const sys::Mapping& mapping);

} // namespace netctl::trace
