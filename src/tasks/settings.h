#pragma once

#include <string>
#include <vector>

#include "tasks/sweep.h"

namespace comba::tasks {

/// Sweeps that have a name. Mixers, widths, rates and everything else may be changed before they are run.

/// "small": solved or not within minutes on a CPU.
/// "mixture": Zoology's later experiments: five kinds of sequences to learn from, seven to test, up to 1024 tokens with
/// 256 pairs, random tokens between the queries; 32 epochs.
/// "figure2": those of the paper's figure 2 (arXiv 2312.04927): data sets 64x4, 128x8, 256x16 and 512x64, each with a
/// model of its own; 64 epochs.
Sweep mqar_sweep(const std::string& setting);
const std::vector<std::string>& mqar_settings();

/// Training on short sequences of a task other than MQAR, tests on longer ones.
Sweep task_sweep(const std::string& task);

/// "LENGTHxEXAMPLES", or for tasks with items "LENGTHxITEMSxEXAMPLES". Throws Error(invalid_argument).
SegmentSpec parse_segment(const std::string& task, const std::string& text);

}  // namespace comba::tasks
