# LibTorch as the PyTorch wheel ships it. The wheel's own CMake package is not used: it fails without a CUDA toolkit.
# Defines the imported targets torch_cpu and c10, the set of them comba_wheel_torch, and comba_torch_pch, whose
# precompiled header every target that uses LibTorch shares. libtorch.so itself stays out: it only adds the CUDA
# libraries, whose loading costs every start of every program.

if(SKBUILD)
  set(COMBA_PYTHON ${Python_EXECUTABLE})  # the one that pip runs in
endif()
find_program(COMBA_PYTHON python PATHS ${PROJECT_SOURCE_DIR}/.venv/bin NO_DEFAULT_PATH
             DOC "Python whose torch package is linked")
if(NOT COMBA_PYTHON)
  message(FATAL_ERROR "No .venv here: run scripts/setup, or name a Python that has torch: -DCOMBA_PYTHON=...")
endif()
# Found, not imported: importing torch takes seconds.
execute_process(
  COMMAND ${COMBA_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
  OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
if(failed OR NOT EXISTS ${torch_dir}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "${COMBA_PYTHON} has no torch package: run scripts/setup")
endif()
file(STRINGS ${torch_dir}/version.py torch_version REGEX "^__version__ =")
string(REGEX REPLACE ".*'(.*)'.*" "\\1" torch_version "${torch_version}")
if(torch_version VERSION_LESS 2.7)
  message(FATAL_ERROR "torch ${torch_version} is too old: wheels have gcc's C++11 ABI since 2.7")
endif()
if(COMBA_CUDA AND torch_version VERSION_LESS 2.11)
  message(FATAL_ERROR "torch ${torch_version} is too old for COMBA_CUDA=ON: c10::Stream gives its handle since 2.11")
endif()
message(STATUS "LibTorch: ${torch_version} from ${torch_dir}")

# Relative when the environment is in the tree, so that a copied tree runs.
cmake_path(IS_PREFIX PROJECT_SOURCE_DIR ${torch_dir} in_tree)
if(in_tree)
  cmake_path(RELATIVE_PATH torch_dir BASE_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} OUTPUT_VARIABLE from_bin)
  set(CMAKE_BUILD_RPATH $ORIGIN/${from_bin}/lib)
endif()

# An installed program uses the LibTorch it was built with, where it is.
set(CMAKE_INSTALL_RPATH ${torch_dir}/lib)
if(COMBA_CUDA)
  list(APPEND CMAKE_INSTALL_RPATH $ORIGIN/../lib)
endif()

function(comba_import_wheel_library name)
  add_library(${name} SHARED IMPORTED)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${torch_dir}/lib/lib${name}.so)
  target_include_directories(${name} SYSTEM INTERFACE ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
endfunction()
comba_import_wheel_library(c10)
comba_import_wheel_library(torch_cpu)
if(COMBA_CUDA)
  # For libcomba_cuda.so alone, which a program loads when it is asked for a GPU.
  comba_import_wheel_library(c10_cuda)
  comba_import_wheel_library(torch_cuda)
  list(APPEND CMAKE_BUILD_RPATH $ORIGIN/../lib)
endif()

add_library(comba_wheel_torch INTERFACE)
# The wheel brings its own OpenMP runtime. Named here, it comes before gcc's of the same name: one pool a process.
file(GLOB torch_gomp ${torch_dir}/lib/libgomp*.so*)
target_link_libraries(comba_wheel_torch INTERFACE torch_cpu c10 ${torch_gomp})
# fmt comes with LibTorch's headers and has no library of its own there.
target_compile_definitions(comba_wheel_torch INTERFACE FMT_HEADER_ONLY=1)

file(CONFIGURE OUTPUT torch_pch.cpp CONTENT "// Only its precompiled header is wanted.\n")
add_library(comba_torch_pch OBJECT ${CMAKE_CURRENT_BINARY_DIR}/torch_pch.cpp)
target_link_libraries(comba_torch_pch PUBLIC comba_wheel_torch)
# Not <torch/torch.h>: every file that sees it spends 3 s on templates it does not use.
target_precompile_headers(comba_torch_pch PRIVATE <ATen/ATen.h> <torch/csrc/autograd/autograd.h> <torch/nn/module.h>
                                                  <torch/types.h> <torch/utils.h>)
