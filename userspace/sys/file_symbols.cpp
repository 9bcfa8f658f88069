// SPDX-License-Identifier: GPL-2.0-only
#include "sys/file_symbols.hpp"

#include <cstddef>
#include <cstdlib>
#include <optional>

#include <elfutils/libdwfl.h>
#include <gelf.h>

namespace netctl::sys {

namespace {

const Dwfl_Callbacks callbacks{dwfl_build_id_find_elf, dwfl_standard_find_debuginfo,
                               dwfl_offline_section_address, nullptr};

/// The address that was linked to be at an offset of the file; nothing if none is.
std::optional<GElf_Addr> address_of(Elf* elf, std::uint64_t offset) {
    std::size_t count = 0;
    if (elf_getphdrnum(elf, &count) != 0)
        return std::nullopt;
    for (std::size_t i = 0; i < count; ++i) {
        GElf_Phdr segment;
        if (gelf_getphdr(elf, static_cast<int>(i), &segment) && segment.p_type == PT_LOAD &&
            (segment.p_flags & PF_X) != 0 && offset >= segment.p_offset &&
            offset - segment.p_offset < segment.p_filesz)
            return offset - segment.p_offset + segment.p_vaddr;
    }
    return std::nullopt;
}

} // namespace

struct FileSymbols::Session {
    explicit Session(Dwfl* begun) : dwfl(begun) {}
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() { dwfl_end(dwfl); }

    Dwfl* dwfl;
    Dwfl_Module* module = nullptr;
    Elf* elf = nullptr;
    GElf_Addr bias = 0; ///< what libdwfl adds to addresses of the file
};

FileSymbols::FileSymbols(Fd file, const std::string& path) {
    // libdwfl asks these servers for what is not here.
    unsetenv("DEBUGINFOD_URLS");
    Dwfl* dwfl = dwfl_begin(&callbacks);
    if (!dwfl)
        return;
    auto session = std::make_shared<Session>(dwfl);
    dwfl_report_begin(dwfl);
    session->module = dwfl_report_offline(dwfl, path.c_str(), path.c_str(), file.get());
    if (session->module)
        static_cast<void>(file.release()); // it is libdwfl's from now on
    dwfl_report_end(dwfl, nullptr, nullptr);
    session->elf = session->module ? dwfl_module_getelf(session->module, &session->bias) : nullptr;
    if (session->elf)
        session_ = std::move(session);
}

std::string FileSymbols::at(std::uint64_t offset) const {
    const auto address = session_ ? address_of(session_->elf, offset) : std::nullopt;
    if (!address)
        return {};
    GElf_Off within = 0;
    GElf_Sym symbol;
    const char* name = dwfl_module_addrinfo(session_->module, *address + session_->bias, &within,
                                            &symbol, nullptr, nullptr, nullptr);
    // One without a size is where something begins; what lies far behind it is something else.
    constexpr GElf_Off longest = 4096;
    if (!name || (symbol.st_size == 0 && within > longest))
        return {};
    return name;
}

} // namespace netctl::sys
