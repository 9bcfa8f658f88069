// SPDX-License-Identifier: GPL-2.0-only
//
// Sets as a user handles them.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "datapath/sets.hpp"
#include "features/set/names.hpp"

namespace netctl::set {

struct SetStatus {
    std::string name;
    datapath::SetType type{};
    std::uint32_t max_entries = 0;
    datapath::Set::Size size{};
    std::vector<std::string> users;    ///< "xdp/eth0 rule 3"
    std::optional<NameStatus> names{}; ///< of a set of names, as far as it may be read
};

/// A line of a set of names: an address with the name that brought it, or a name that has none, or an address that
/// somebody else has written.
struct NamedEntry {
    std::optional<WantedName> name{};
    std::optional<LearntAddress> learnt{};
    std::optional<datapath::SetEntry> entry{};
};

/// What is in a set, read as one state.
struct Listing {
    std::optional<std::vector<NamedEntry>> named{}; ///< of a set of names
    std::vector<datapath::SetEntry> entries{};      ///< of any other
};

/// A list as it was read, and its name for messages.
struct ElementList {
    std::string source;
    std::string text;
};

struct ImportOptions {
    bool replace = false;     ///< remove what the lists do not have
    bool allow_empty = false; ///< with `replace`: also by nothing
    bool skip_bad = false;    ///< leave out what cannot be read
};

/// The networks of countries (countries.hpp): of registries' lists, or of a database.
struct CountryRequest {
    std::set<std::string> countries; ///< codes in upper case
    std::vector<ElementList> registries{};
    std::string mmdb{}; ///< path of a file in MaxMind's format; if empty, the lists count
};

struct ChangeReport {
    std::size_t elements = 0; ///< that were given
    std::vector<datapath::SetElement>
        spared{};                     ///< of them: there for good, so without a time to live
    std::vector<std::string> notes{}; ///< what the user should know although it is done
};

struct ImportReport : ChangeReport {
    std::size_t skipped = 0; ///< lines that could not be read
    std::vector<Error> bad;  ///< the first of them
};

/// What a list would change if it were imported with `replace`.
struct DiffReport {
    std::vector<datapath::SetEntry> added, removed;
    /// In both, but of another kind: a member and an exception, or for good and with a time to live. As in the list.
    std::vector<datapath::SetEntry> changed;
    std::size_t skipped = 0; ///< as in ImportReport
    std::vector<Error> bad;
};

/// How many elements of each family, or addresses of names, a set has room for if nobody says it. A hash has its table at once, 16 bytes
/// an element and IP version; a trie and a base have not.
constexpr std::uint32_t default_size(datapath::SetType type) {
    return type == datapath::SetType::host   ? 65536
           : type == datapath::SetType::name ? 16384
                                             : 1048576;
}

class Controller {
  public:
    explicit Controller(RootOptions root) : root_(std::move(root)) {}

    // What they return besides are notes for the user.
    /// `group`: a name or a number, or empty; see change_group(). `names` is for sets of names.
    Result<std::vector<std::string>> create(const std::string& name, datapath::SetType type,
                                            std::uint32_t max_entries, const std::string& group,
                                            const NameRequest& names = {});
    /// Lets the members of a group write the set's elements.
    Result<std::vector<std::string>> change_group(const std::string& name,
                                                  const std::string& group);
    /// Refused while a rule uses the set; the error names the rules.
    Result<std::vector<std::string>> destroy(const std::string& name);
    /// All or none; what is there already is no error. `ttl_seconds` 0: for ever. Of a set of names: names.
    Result<ChangeReport> add(const std::string& name, const std::vector<std::string>& texts,
                             std::uint32_t ttl_seconds);
    /// All or none: fails if one is not in the set, unless that does not matter.
    Result<ChangeReport> remove(const std::string& name, const std::vector<std::string>& texts,
                                datapath::Set::Missing missing);
    /// Moves the elements of a cidr set, whoever wrote them, from the live maps into the base.
    Result<std::vector<std::string>> fold(const std::string& name);
    Result<std::vector<SetStatus>> list() const;
    Result<Listing> entries(const std::string& name) const;
    /// Of a set of names.
    Result<NameStatus> names(const std::string& name) const;
    /// Believes the answers of these and no others; of none: those that this host asks now.
    Result<std::vector<std::string>> set_resolvers(const std::string& name,
                                                   const std::vector<Address>& resolvers,
                                                   const std::string& netns) const;
    /// Asks for the names of a set that are no wildcards, from the namespace `netns`.
    Result<std::vector<Resolved>> resolve(const std::string& name, const std::string& netns) const;
    /// Whether a packet with this address or port would be found in the set; of a set of names also whether it wants a
    /// name.
    Result<bool> test(const std::string& name, const std::string& text) const;
    /// Adds the elements of lists (datapath/set_text.hpp). The error names each bad line, up to twenty of
    /// them, and nothing is added then.
    Result<ImportReport> import(const std::string& name, const std::vector<ElementList>& lists,
                                const ImportOptions& options);
    /// Adds the networks of countries to a set of prefixes, merged to the fewest. Each of the countries must have some.
    Result<ImportReport> import_countries(const std::string& name, const CountryRequest& request,
                                          const ImportOptions& options);
    /// What import() with `replace` would change; how long elements last is not compared.
    Result<DiffReport> diff(const std::string& name, const std::vector<ElementList>& lists,
                            bool skip_bad) const;
    /// Gives two sets each other's elements (datapath::Set::swap).
    Result<std::vector<std::string>> swap(const std::string& one, const std::string& other);

  private:
    RootOptions root_;
};

} // namespace netctl::set
