# require_version.cmake - `cmake -P` fails when CMake is too old for edgellm, or broken.
cmake_minimum_required(VERSION 3.21)
