# What `pip install` puts beside the package's Python: the operators for PyTorch, and the note of what they were built
# with. COMBA_TORCH_LIBRARY names operators that are built already, and then nothing is compiled.

set(package_files DESTINATION comba COMPONENT python)
if(COMBA_TORCH_LIBRARY)
  cmake_path(ABSOLUTE_PATH COMBA_TORCH_LIBRARY BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE library)
  cmake_path(REPLACE_EXTENSION library LAST_ONLY .json OUTPUT_VARIABLE note)
  foreach(file IN ITEMS ${library} ${note})
    if(NOT EXISTS ${file})
      message(FATAL_ERROR "COMBA_TORCH_LIBRARY must name a built libcomba_torch.so with its .json beside it; ${file} is not there")
    endif()
  endforeach()
  add_custom_target(comba_torch)
  install(PROGRAMS ${library} ${package_files})
  install(FILES ${note} ${package_files})
else()
  install(TARGETS comba_torch LIBRARY ${package_files})
  install(FILES ${PROJECT_BINARY_DIR}/lib/libcomba_torch.json ${package_files})
endif()
