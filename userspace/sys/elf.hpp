// SPDX-License-Identifier: GPL-2.0-only
//
// What an ELF file says of itself.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "core/result.hpp"

namespace netctl::sys {

/// Where functions begin in a file of this machine's kind and 64 bits: offsets in the file by name, of those
/// of `names` that it defines in .dynsym, or else in .symtab. Empty if it defines none, or is no such file.
/// The file's position is not used. Errors: it cannot be read.
Result<std::map<std::string, std::uint64_t>> find_functions(int fd,
                                                            std::span<const char* const> names);

/// Whether the file has a section of this name; false if it is no ELF file.
bool has_section(int fd, const std::string& name);

} // namespace netctl::sys
