# vendor_ggml.cmake - put the pinned ggml archive into third_party/, so that a source distribution carries it.
#   cmake -DPython_EXECUTABLE=python3 -P cmake/vendor_ggml.cmake
cmake_minimum_required(VERSION 3.21)
get_filename_component(PROJECT_SOURCE_DIR "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
set(PROJECT_BINARY_DIR "${PROJECT_SOURCE_DIR}/build/vendor")
set(EL_CONFIGURE_COMMAND "make sdist")
include("${CMAKE_CURRENT_LIST_DIR}/fetch_ggml.cmake")
el_ggml_archive(archive)
file(COPY "${archive}" DESTINATION "${PROJECT_SOURCE_DIR}/third_party")
