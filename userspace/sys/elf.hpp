// SPDX-License-Identifier: GPL-2.0-only
//
// What an ELF file says of itself.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::sys {

/// Where functions begin in a file of this machine's kind and 64 bits: offsets in the file by name, of those
/// of `names` that it defines in .dynsym, or else in .symtab. Empty if it defines none, or is no such file.
/// The file's position is not used. Errors: it cannot be read.
Result<std::map<std::string, std::uint64_t>> find_functions(int fd,
                                                            std::span<const char* const> names);

struct ElfFunction {
    std::string name;         ///< as the linker has it
    std::uint64_t offset = 0; ///< in the file, of its first instruction
    bool resolver = false;    ///< its code only chooses which function has the name (IFUNC)
};

struct ElfFunctions {
    std::vector<ElfFunction> functions; ///< by name; several names may have one offset
    bool stripped = false;              ///< only those are known that it offers to others
};

/// All functions that the file defines: of .dynsym, and of .symtab, its own or that of the file with its build id below
/// /usr/lib/debug. Errors: it cannot be read, or is no ELF file of this machine's kind and 64 bits.
Result<ElfFunctions> list_functions(int fd);
/// Whether `offset` of the file is code when it is mapped.
bool is_code(int fd, std::uint64_t offset);
/// Whether it is an ELF file of this machine's kind and 64 bits.
bool is_own_kind(int fd);

/// Whether the file has a section of this name; false if it is no ELF file.
bool has_section(int fd, const std::string& name);

} // namespace netctl::sys
