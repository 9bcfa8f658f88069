// SPDX-License-Identifier: GPL-2.0-only
#include "testing/classifier_run.hpp"

#include <algorithm>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/object.hpp"
#include "classifier.skel.h"

namespace netctl::testing {

struct ClassifierRun::State {
    bpf::Skeleton<classifier> skeleton;
};

ClassifierRun::ClassifierRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
ClassifierRun::ClassifierRun(ClassifierRun&&) noexcept = default;
ClassifierRun& ClassifierRun::operator=(ClassifierRun&&) noexcept = default;
ClassifierRun::~ClassifierRun() = default;

Result<ClassifierRun> ClassifierRun::load(const netctl::classifier::Compiled& compiled) {
    bpf::capture_libbpf_messages();
    auto skeleton = NETCTL_TRY(bpf::Skeleton<classifier>::open());
    bpf::Object object = skeleton.object();
    for (const netctl::classifier::Table& table : compiled.tables)
        NETCTL_TRY(object.set_table(table.name, table.bytes));
    for (const netctl::classifier::Constant& constant : compiled.constants)
        NETCTL_TRY(object.set_constant(constant.name, constant.values));
    NETCTL_TRY(object.load());
    // Loading remaps the data sections that have a struct in the skeleton; it points there again.
    if (int status = classifier::load(&*skeleton.operator->()); status != 0)
        return Error::system(-status, "cannot map the classifier's data");
    return ClassifierRun(std::make_unique<State>(State{std::move(skeleton)}));
}

} // namespace netctl::testing
