// SPDX-License-Identifier: GPL-2.0-only
//
// netctl-fleet's commands.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/command.hpp"
#include "fleet/source.hpp"

namespace netctl::fleet {

Command fleet_commands();
/// `run`, what hosts run.
Command run_command_of_hosts();

/// What several commands take, and how it is read.
std::vector<Option> source_options();
Result<std::unique_ptr<Source>> open_source(const Arguments& arguments);
/// Makes a user of etcd for a host.
Result<> enrol_host(const Arguments& arguments, const std::string& host);
/// The words between commas.
std::vector<std::string> split_words(const std::string& text);
Option keys_option();
Option threshold_option();
constexpr const char* default_keys = "/etc/netctl/fleet-keys.d";

} // namespace netctl::fleet
