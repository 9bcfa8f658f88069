// SPDX-License-Identifier: GPL-2.0-only
//
// The lookup of lib/crossing.h once more, in userspace, which counts what it reads. Nanoseconds depend on the
// machine and on what else it does; how many reads a packet takes does not, so that they can be asserted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "classifier/engine.hpp"
#include "netctl/abi/packet.h"

namespace netctl::testing {

class TableWalk {
  public:
    struct Found {
        std::uint32_t rule = 0; ///< its position, or NC_NO_RULE
        bool fault = false;     ///< a read beyond a table, which ends the search
        unsigned lines = 0;     ///< of 64 bytes in tables, that it reads from
        unsigned words = 0;     ///< of rules apart that were looked into
    };

    /// `compiled` must be of the crossing form, and outlive this.
    explicit TableWalk(const classifier::Compiled& compiled);
    Found find(const nc_packet& packet, std::uint64_t set_bits);
    /// Of all packets so far, by table.
    struct Use {
        std::size_t lines = 0;   ///< that they read from, each packet's counted for itself
        std::size_t touched = 0; ///< different ones: what many flows need of the caches
    };
    std::map<std::string, Use> uses() const;

  private:
    struct Entries {
        const classifier::Table* table = nullptr;
        unsigned width = 0;
    };
    struct Row {
        bool asked = false;
        std::uint64_t at = 0;
    };

    std::uint64_t constant(const std::string& name, std::size_t i = 0) const;
    bool has(const std::string& table) const { return tables_.contains(table); }
    std::uint64_t read(const std::string& table, std::uint64_t i);
    bool is_none(const std::string& table, std::uint64_t entry) const;
    std::uint64_t path(unsigned number, std::uint64_t high, std::uint64_t low);
    std::uint64_t path4(unsigned number, std::uint64_t key);
    std::uint64_t address_class(const nc_packet& packet, bool source);
    std::uint64_t packet_class(const nc_packet& packet, std::uint64_t set_bits, std::uint64_t src,
                               std::uint64_t dst);
    std::uint64_t crossed(const std::string& number, std::uint64_t row, std::uint64_t other,
                          std::uint64_t packet_class);
    void search(std::uint64_t& first);
    void look_into(std::uint64_t group, std::uint64_t word, std::uint64_t& first);
    std::uint64_t block(const Row& row, std::uint64_t group);

    std::map<std::string, Entries> tables_;
    std::map<std::string, std::vector<std::uint32_t>> constants_;
    std::vector<Row> rows_; ///< by input
    using Line = std::pair<const classifier::Table*, std::uint64_t>;
    std::vector<Line> lines_;             ///< that were read
    std::map<Line, std::size_t> touched_; ///< that were read for any packet, and for how many
    Found found_;
};

struct LinesRead {
    double average = 0;  ///< cache lines of the tables that a packet reads from
    unsigned faults = 0; ///< packets for which the tables lead beyond their ends
};
/// Of 300 packets near the rules, which ask for no set.
LinesRead lines_read(const classifier::Compiled& compiled, const std::vector<Rule>& rules);

} // namespace netctl::testing
