// SPDX-License-Identifier: GPL-2.0-only
//
// A folder as a source: a mounted ConfigMap, a git checkout, what rsync brings, a shared file system.
#pragma once

#include "core/fd.hpp"
#include "fleet/source.hpp"

namespace netctl::fleet {

class DirSource : public Source {
  public:
    /// `statuses`: the folder for what hosts report; empty: `status` below `folder`. Changes are watched if the kernel
    /// tells of them; else every wait lasts its time.
    static Result<DirSource> open(const std::string& folder, const std::string& statuses);

    Result<std::optional<std::string>> read(const std::string& name, std::size_t most) override;
    Result<> write(const std::string& name, std::string_view bytes) override;
    Result<> update(const std::string& name, std::size_t most, const Change& change) override;
    Result<Held> hold(const std::string& task, const std::string& who) override;
    Result<> write_status(const std::string& host, std::string_view text) override;
    Result<std::vector<StatusEntry>> statuses() override;
    bool wait(unsigned milliseconds) override;
    std::string name() const override { return folder_; }

    void watch_statuses() override;

  private:
    Result<Fd> lock_file(const std::string& name) const;

    DirSource(std::string folder, std::string statuses)
        : folder_(std::move(folder)), statuses_(std::move(statuses)) {}

    std::string folder_, statuses_;
    Fd changes_; ///< inotify
};

} // namespace netctl::fleet
