// SPDX-License-Identifier: GPL-2.0-only
//
// Probes that programs have for tracers, by the words that users have for them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "features/trace/func/targets.hpp"
#include "features/trace/program_file.hpp"
#include "sys/stapsdt.hpp"

namespace netctl::trace::usdt {

struct ProbeFile {
    ProgramFile file;
    std::vector<sys::UsdtProbe> probes; ///< by provider and name
};

/// The file as for find_program_file(); an empty name: the program of `pid` and all that it has mapped, of which those without
/// probes are left out. Errors: there is no such file; neither is given; it has no probes.
Result<std::vector<ProbeFile>> find_probe_files(const std::string& file, std::uint32_t pid);

/// Whether a probe may be watched where it is. The error tells why not.
Result<> check_site(const ProgramFile& file, const sys::UsdtProbe& probe);

/// Each word is `PROVIDER:NAME`, of which NAME may be a glob, or `PROVIDER:BEGIN..DONE`: what lies between is a call, by thread.
/// `look` tells which of these is wanted. Errors name what there is not, with what is like it.
Result<func::Targets> find_probes(const std::vector<std::string>& words,
                                  std::vector<ProbeFile> files, func::Look look);

} // namespace netctl::trace::usdt
