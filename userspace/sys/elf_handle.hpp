// SPDX-License-Identifier: GPL-2.0-only
//
// libelf's view of a file, for those that read one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <gelf.h>
#include <libelf.h>

namespace netctl::sys {

struct ElfEnd {
    void operator()(Elf* elf) const { elf_end(elf); }
};
using ElfHandle = std::unique_ptr<Elf, ElfEnd>;

/// Null if it cannot be read; the file's position is not used.
ElfHandle open_elf(int fd);
/// Where in the file an address lies as it was linked; nothing if no segment that has all `flags` (PF_X, or 0) holds it.
std::optional<std::uint64_t> elf_offset(Elf* elf, std::uint64_t address, GElf_Word flags);

} // namespace netctl::sys
