// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/instrument.hpp"

#include <utility>

#include <fmt/format.h>

#include "bpf/per_cpu_sum.hpp"
#include "bpf/sockets.hpp"

namespace netctl::trace {

std::string InstrumentCounters::text() const {
    std::string text = fmt::format("{} records, {} lost", kernel.sent, lost());
    if (kernel.no_memory > 0)
        text += fmt::format(", {} sockets not remembered for lack of memory", kernel.no_memory);
    return text;
}

Json InstrumentCounters::json() const {
    return {{"records", kernel.sent}, {"lost", lost()}, {"not_remembered", kernel.no_memory}};
}

Result<Instrument> Instrument::start(const bpf::Object& object, const Selection& selection,
                                     const InstrumentPlan& plan, RecordReader::Handler handler) {
    std::vector<std::string> all = plan.programs;
    for (const auto* more : {&plan.probes, &plan.iterators})
        all.insert(all.end(), more->begin(), more->end());
    NETCTL_TRY(object.load_only(all));
    NETCTL_TRY(select_before_load(object, selection));
    NETCTL_TRY(object.set_max_entries("events", plan.ring_bytes));
    NETCTL_TRY(object.load());
    NETCTL_TRY(select_after_load(object, selection));
    Instrument instrument;
    instrument.counters_ = NETCTL_TRY(object.map("counters"));
    instrument.reader_ =
        NETCTL_TRY(RecordReader::open(NETCTL_TRY(object.map("events")), std::move(handler)));
    for (const std::string& name : plan.programs) {
        instrument.programs_.push_back(NETCTL_TRY(object.program(name)));
        instrument.links_.push_back(NETCTL_TRY(object.attach(name)));
    }
    for (const std::string& name : plan.probes)
        instrument.programs_.push_back(NETCTL_TRY(object.program(name)));
    // Behind the others, so that no socket comes between: what those know already, these leave alone.
    for (const std::string& name : plan.iterators)
        instrument.iterators_.push_back(NETCTL_TRY(object.program(name)));
    NETCTL_TRY(instrument.iterate());
    return instrument;
}

Result<> Instrument::iterate() const {
    for (const bpf::Program& program : iterators_)
        NETCTL_TRY(bpf::run_iterator(program));
    return {};
}

Result<> Instrument::stop() {
    links_.clear();
    return reader_->drain();
}

Result<InstrumentCounters> Instrument::counters() const {
    InstrumentCounters counters;
    counters.kernel = NETCTL_TRY(bpf::sum_per_cpu<nc_trace_counters>(counters_));
    for (const bpf::Program& program : programs_)
        if (const auto info = program.info())
            counters.recursions += info->recursions;
    return counters;
}

} // namespace netctl::trace
