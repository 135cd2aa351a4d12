#pragma once

namespace comba::data {

/// The text of python/comba/data_helper.py.
extern const char* const kPythonHelperSource;

}  // namespace comba::data
