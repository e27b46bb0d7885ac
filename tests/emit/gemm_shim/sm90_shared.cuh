// What the skeleton of this name declares stands in sm90.cuh here.
#pragma once
#include "sm90.cuh"
