# tensors.cmake - edgellm.tensors, a pybind11 module for the one Python that builds it.
# EDGELLM_TENSORS: ON, OFF, or AUTO: where the result can be imported and what it takes is at hand. It takes pybind11
# and Python's headers, which small machines often lack; edgellm works without. Sets EL_TENSORS to TRUE or FALSE.
# Only include directories come from pybind11, not its CMake functions: flags and linking are ours (cmake/flags.cmake).

set(EDGELLM_TENSORS AUTO CACHE STRING "Build edgellm.tensors for this Python: ON, OFF, or AUTO, where that is possible")

set(EL_TENSORS FALSE)
set(EL_TENSORS_SUMMARY "no (EDGELLM_TENSORS=${EDGELLM_TENSORS})")
if(EDGELLM_TENSORS STREQUAL "AUTO" AND (CMAKE_CROSSCOMPILING OR WIN32 OR EDGELLM_SANITIZE OR EDGELLM_FUZZ))
  set(EL_TENSORS_SUMMARY "no (cross build, Windows, sanitizers or fuzzing)")
elseif(EDGELLM_TENSORS) # AUTO is true
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import pybind11; print(pybind11.get_include())"
                  RESULT_VARIABLE failed OUTPUT_VARIABLE EL_PYBIND11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_package(Python QUIET COMPONENTS Interpreter Development.Module)
  if(NOT failed AND Python_Development.Module_FOUND)
    set(EL_TENSORS TRUE)
    set(EL_TENSORS_SUMMARY "yes")
  elseif(EDGELLM_TENSORS STREQUAL "AUTO")
    set(EL_TENSORS_SUMMARY "no (needs pybind11 and the headers of ${Python_EXECUTABLE})")
  elseif(failed)
    message(FATAL_ERROR "edgellm.tensors needs pybind11. Run\n  ${Python_EXECUTABLE} -m pip install pybind11\n"
                        "or leave the module out with -DEDGELLM_TENSORS=OFF.")
  else()
    message(FATAL_ERROR "edgellm.tensors needs the headers of ${Python_EXECUTABLE}. Run\n"
                        "  apt-get install python3-dev        (Debian, Ubuntu, Raspberry Pi OS)\n"
                        "or leave the module out with -DEDGELLM_TENSORS=OFF.")
  endif()
endif()

function(el_add_tensors)
  Python_add_library(edgellm_tensors MODULE WITH_SOABI src/edgellm/tensors/_tensors.cpp)
  target_include_directories(edgellm_tensors PRIVATE include csrc)
  target_include_directories(edgellm_tensors SYSTEM PRIVATE "${EL_PYBIND11_DIR}")
  target_link_libraries(edgellm_tensors PRIVATE el_flags ${CMAKE_DL_LIBS})
  target_compile_options(edgellm_tensors PRIVATE -Wall -Wextra -Wshadow $<$<BOOL:${EDGELLM_DEVELOPER}>:-Werror>)
  el_link_library(edgellm_tensors OPEN PyInit__tensors)
  set_target_properties(edgellm_tensors PROPERTIES OUTPUT_NAME _tensors
                        LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tensors")
endfunction()
