#pragma once

/// Marks what a shared libcomba shows; everything else is hidden.
#if defined(__GNUC__)
#define COMBA_API __attribute__((visibility("default")))
#else
#define COMBA_API
#endif
