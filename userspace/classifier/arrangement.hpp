// SPDX-License-Identifier: GPL-2.0-only
//
// In which order rules that stand apart get their bits. A packet pays for each word of 64 bits in which every
// one of its fields has some rule that it satisfies, so rules that few packets have in common stand together
// (F. Baboescu, G. Varghese: "Scalable packet classification", SIGCOMM 2001, rearrange by one field).
#pragma once

#include <cstdint>
#include <vector>

#include "classifier/pieces.hpp"

namespace netctl::classifier {

/// The numbers of all pieces in the order of their bits; ascending within each 64.
///
/// A set of pieces is cut in two at a value of the input on which that works best; those that hold on both
/// sides of the cut are a third part. So it goes on with each part, down to 64: a k-d tree, of which only the
/// order of the leaves is kept.
std::vector<std::uint32_t> arrange(const Pieces& pieces);

} // namespace netctl::classifier
