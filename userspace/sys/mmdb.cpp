// SPDX-License-Identifier: GPL-2.0-only
#include "sys/mmdb.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <maxminddb.h>

namespace netctl::sys {

namespace {

/// Walks the whole search tree once.
class Networks {
  public:
    Networks(MMDB_s& database, const std::string& path, const std::set<std::string>& countries)
        : database_(database),
          path_(path),
          countries_(countries),
          seen_(database.metadata.node_count) {}

    Result<std::vector<Prefix>> run() {
        const bool ipv6 = database_.metadata.ip_version == 6;
        if (!ipv6 && database_.metadata.ip_version != 4)
            return wrong(fmt::format("it is of IP version {}", database_.metadata.ip_version));
        Prefix all;
        all.address.family = ipv6 ? Family::ipv6 : Family::ipv4;
        NETCTL_TRY(walk(0, all));
        for (const std::string& country : countries_)
            if (!found_.contains(country))
                return Error::failed(fmt::format("{} has no network of {}", path_, country),
                                     "codes of countries are those of ISO 3166: DE, FR");
        return std::move(networks_);
    }

  private:
    Error wrong(const std::string& what) const {
        return Error::failed(fmt::format("{} contradicts itself: {}", path_, what),
                             "fetch it anew; nothing is changed");
    }
    Error wrong(int status) const { return wrong(MMDB_strerror(status)); }

    /// At most as deep as an address has bits.
    Result<> walk(std::uint64_t node, const Prefix& prefix) {
        if (node >= seen_.size() || seen_[node])
            return wrong("its search tree leads to one place on two ways");
        seen_[node] = true;
        MMDB_search_node_s sides{};
        const int status = MMDB_read_node(&database_, static_cast<std::uint32_t>(node), &sides);
        if (status != MMDB_SUCCESS)
            return wrong(status);
        NETCTL_TRY(enter(sides.left_record, sides.left_record_type, sides.left_record_entry, prefix,
                         false));
        return enter(sides.right_record, sides.right_record_type, sides.right_record_entry, prefix,
                     true);
    }

    Result<> enter(std::uint64_t record, std::uint8_t type, MMDB_entry_s entry, const Prefix& above,
                   bool bit) {
        Prefix prefix = above;
        if (bit)
            prefix.address.bytes[prefix.length / 8] |=
                static_cast<std::uint8_t>(0x80 >> prefix.length % 8);
        prefix.length++;
        switch (type) {
        case MMDB_RECORD_TYPE_EMPTY: return {};
        case MMDB_RECORD_TYPE_SEARCH_NODE:
            if (is_ipv4_again(record, prefix))
                return {};
            if (prefix.length == prefix.address.bits())
                return wrong("its search tree is deeper than an address is long");
            return walk(record, prefix);
        case MMDB_RECORD_TYPE_DATA: return take(entry, prefix);
        default: return wrong("its search tree has a record that leads nowhere");
        }
    }

    /// Databases of IPv6 have the tree of IPv4 at ::/96, and other places that lead there.
    bool is_ipv4_again(std::uint64_t node, const Prefix& prefix) const {
        return prefix.address.family == Family::ipv6 &&
               node == database_.ipv4_start_node.node_value && !is_ipv4(prefix);
    }
    static bool is_ipv4(const Prefix& prefix) {
        return prefix.length >= 96 && Prefix{{Family::ipv6, {}}, 96}.contains(prefix.address);
    }

    Result<> take(MMDB_entry_s entry, Prefix prefix) {
        auto [known, is_new] = countries_at_.try_emplace(entry.offset);
        if (is_new)
            known->second = NETCTL_TRY(country_of(entry));
        if (known->second.empty())
            return {};
        found_.insert(known->second);
        if (prefix.address.family == Family::ipv6 && is_ipv4(prefix)) {
            Address ipv4;
            std::copy_n(prefix.address.bytes.begin() + 12, 4, ipv4.bytes.begin());
            prefix = {ipv4, static_cast<std::uint8_t>(prefix.length - 96)};
        }
        networks_.push_back(prefix);
        return {};
    }

    /// The country of a record if it is one that is wanted, else nothing.
    Result<std::string> country_of(MMDB_entry_s entry) const {
        const char* const iso[] = {"country", "iso_code", nullptr};
        const char* const code[] = {"country_code", nullptr};
        const char* const country[] = {"country", nullptr};
        for (const char* const* way : {iso, code, country}) {
            MMDB_entry_data_s data{};
            const int status = MMDB_aget_value(&entry, &data, way);
            if (status == MMDB_LOOKUP_PATH_DOES_NOT_MATCH_DATA_ERROR)
                continue;
            if (status != MMDB_SUCCESS)
                return wrong(status);
            if (!data.has_data || data.type != MMDB_DATA_TYPE_UTF8_STRING)
                continue;
            std::string text(data.utf8_string, data.data_size);
            return countries_.contains(text) ? std::move(text) : std::string();
        }
        return std::string();
    }

    MMDB_s& database_;
    const std::string& path_;
    const std::set<std::string>& countries_;
    std::vector<bool> seen_;                                      ///< nodes
    std::unordered_map<std::uint32_t, std::string> countries_at_; ///< by a record's offset
    std::set<std::string> found_;
    std::vector<Prefix> networks_;
};

} // namespace

Result<std::vector<Prefix>> mmdb_networks(const std::string& path,
                                          const std::set<std::string>& countries) {
    MMDB_s database{};
    const int status = MMDB_open(path.c_str(), MMDB_MODE_MMAP, &database);
    const bool empty = status == MMDB_IO_ERROR && errno == EINVAL; // which cannot be mapped
    if (status == MMDB_FILE_OPEN_ERROR || (status == MMDB_IO_ERROR && !empty))
        return Error::system(errno, fmt::format("cannot read {}", path));
    if (status != MMDB_SUCCESS)
        return Error::failed(
            fmt::format("{} is no MaxMind DB, or cut: {}", path, MMDB_strerror(status)),
            "as GeoLite2-Country.mmdb; compressed files have to be unpacked");
    const std::unique_ptr<MMDB_s, decltype(&MMDB_close)> close(&database, MMDB_close);
    return Networks(database, path, countries).run();
}

} // namespace netctl::sys
