# The few shapes a target of this tree can have.

# Common to every target: include roots and warnings.
function(comba_compile_settings target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                              $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wnon-virtual-dtor>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # gcc 12 warns of its own std::string operator+ (gcc bug 105651).
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  endif()
endfunction()

# LibTorch's headers, parsed once: see cmake/LibTorch.cmake.
function(comba_use_torch target)
  target_link_libraries(${target} PUBLIC comba_wheel_torch)
  if(NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
    target_precompile_headers(${target} REUSE_FROM comba_torch_pch)
  endif()
endfunction()

# comba_add_library(<name> SOURCES file... [DEPS target...] [OPENMP_SOURCES file...] [TORCH])
# makes the static library comba_<name>. DEPS take targets, or bare names of earlier folders (`base` for comba_base).
# OPENMP_SOURCES are compiled with -fopenmp. TORCH adds LibTorch and its precompiled header.
function(comba_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;DEPS;OPENMP_SOURCES")
  set(target comba_${name})
  add_library(${target} STATIC ${arg_SOURCES} ${arg_OPENMP_SOURCES})
  comba_compile_settings(${target})
  # Kernels live below the LibTorch floor: they are optimised even where -g is asked for.
  if(NOT arg_TORCH)
    target_compile_options(${target} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O3>)
  endif()
  comba_link(${target} ${arg_DEPS})
  if(arg_TORCH)
    comba_use_torch(${target})
  endif()
  if(arg_OPENMP_SOURCES)
    # A precompiled header made without -fopenmp cannot serve a file compiled with it.
    set_source_files_properties(${arg_OPENMP_SOURCES} PROPERTIES COMPILE_OPTIONS -fopenmp SKIP_PRECOMPILE_HEADERS ON)
  endif()
endfunction()

function(comba_link target)
  foreach(dep IN LISTS ARGN)
    if(NOT TARGET ${dep} AND TARGET comba_${dep})
      set(dep comba_${dep})
    endif()
    target_link_libraries(${target} PUBLIC ${dep})
  endforeach()
endfunction()

# comba_add_executable(<name> SOURCES file... [DEPS target...] [TORCH])
function(comba_add_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;DEPS")
  add_executable(${name} ${arg_SOURCES})
  comba_compile_settings(${name})
  comba_link(${name} ${arg_DEPS})
  if(arg_TORCH)
    comba_use_torch(${name})
  endif()
endfunction()

# comba_add_test(<name> SOURCES file... [DEPS target...] [LABELS label...] [TORCH])
# makes the GoogleTest program test_<name>. Each of its tests is one ctest entry, so that a skipped one is named; only
# LibTorch programs are one entry as a whole, since every start of one costs the loading of LibTorch.
function(comba_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;DEPS;LABELS")
  set(target test_${name})
  add_executable(${target} ${arg_SOURCES})
  comba_compile_settings(${target})
  # A test runs once: what the optimiser would spend on it is not won back.
  target_compile_options(${target} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  comba_link(${target} ${arg_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${target} PRIVATE COMBA_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                               COMBA_PROGRAM="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/comba")
  if(arg_TORCH)
    comba_use_torch(${target})
    add_test(NAME ${name} COMMAND ${target})
    # LibTorch's threads wait by spinning; beside another busy program that makes every loop a hundred times slower.
    set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" PROCESSORS 2 ENVIRONMENT OMP_WAIT_POLICY=passive)
  else()
    include(GoogleTest)
    gtest_discover_tests(${target} TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST PROPERTIES LABELS "${arg_LABELS}")
  endif()
endfunction()
