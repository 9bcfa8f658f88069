// SPDX-License-Identifier: GPL-2.0-only
#include "features/set/controller.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "datapath/point.hpp"

namespace netctl::set {

using datapath::LockedRoot;
using datapath::Root;
using datapath::Set;
using datapath::SetElement;

Result<> Controller::create(const std::string& name, datapath::SetType type,
                            std::uint32_t max_entries) {
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_));
    NETCTL_TRY(Set::create(root, name, type, max_entries));
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<> Controller::destroy(const std::string& name) {
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const std::vector<std::string> users = NETCTL_TRY(datapath::users_of_set(root, name));
    if (!users.empty())
        return Error::failed(fmt::format("set '{}' is in use by {}", name, fmt::join(users, ", ")),
                             "delete these rules first");
    NETCTL_TRY(Set::destroy(root, name));
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<std::size_t> Controller::add(const std::string& name, const std::vector<std::string>& texts,
                                    std::uint32_t ttl_seconds) {
    // Not beside a fold, which moves elements, nor a reader.
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    std::vector<SetElement> elements;
    for (const std::string& text : texts)
        elements.push_back(NETCTL_TRY(datapath::parse_element(set.type(), text)));
    nc_set_value value{};
    if (ttl_seconds > 0)
        value.expires = datapath::boottime_seconds() + ttl_seconds;
    const std::size_t count = elements.size();
    NETCTL_TRY(set.add(std::move(elements), value));
    return count;
}

Result<std::vector<std::string>> Controller::remove(const std::string& name,
                                                    const std::vector<std::string>& texts) {
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    std::vector<SetElement> elements;
    for (const std::string& text : texts)
        elements.push_back(NETCTL_TRY(datapath::parse_element(set.type(), text)));
    std::vector<std::string> missing;
    for (const SetElement& element : elements)
        if (!NETCTL_TRY(set.remove(element)))
            missing.push_back(datapath::to_string(element));
    return missing;
}

Result<> Controller::fold(const std::string& name) {
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    return NETCTL_TRY(Set::open(root, name)).fold(true);
}

Result<std::vector<SetStatus>> Controller::list() const {
    const Root root = NETCTL_TRY(Root::open(root_));
    std::vector<SetStatus> all;
    for (const std::string& name : Set::list(root)) {
        const Set set = NETCTL_TRY(Set::open(root, name));
        SetStatus status{name, set.type(), set.max_entries(), NETCTL_TRY(set.size()), {}};
        status.users = NETCTL_TRY(datapath::users_of_set(root, name));
        all.push_back(std::move(status));
    }
    return all;
}

Result<std::vector<datapath::SetEntry>> Controller::entries(const std::string& name) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    return set.entries();
}

Result<bool> Controller::test(const std::string& name, const std::string& text) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    return set.contains(NETCTL_TRY(datapath::parse_element(set.type(), text)));
}

Result<ImportReport> Controller::import(const std::string& name, const std::string& text,
                                        const std::string& source, bool replace) {
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    std::vector<SetElement> elements =
        NETCTL_TRY(datapath::parse_elements(set.type(), text, source));
    const std::size_t count = elements.size();
    NETCTL_TRY(replace ? set.assign(std::move(elements)) : set.add(std::move(elements)));
    return ImportReport{count};
}

} // namespace netctl::set
