"""Other people's servers, in memory, driven by the test and by nobody's clock but the test's."""
