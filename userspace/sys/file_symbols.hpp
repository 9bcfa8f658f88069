// SPDX-License-Identifier: GPL-2.0-only
//
// Names of places in the code of programs and libraries.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/fd.hpp"

namespace netctl::sys {

/// The symbols of one file, as libdwfl of elfutils finds them: its own tables, .gnu_debugdata, and the debug file that its
/// build id or .gnu_debuglink names, beside it or below /usr/lib/debug. Nothing is fetched from elsewhere.
class FileSymbols {
  public:
    /// `path` is where debug files are looked for beside. Of what is no ELF file, no symbol is known.
    FileSymbols(Fd file, const std::string& path);

    /// The function at an offset of the file, as the linker has it; empty if none is known.
    std::string at(std::uint64_t offset) const;

  private:
    struct Session;
    std::shared_ptr<Session> session_; ///< null: no ELF file
};

} // namespace netctl::sys
