"""Events of the past in Parquet files: what the files hold, how they are written and queried.

`eventcolumns.writer` needs the extra ``write``, `eventcolumns.engine` the extra ``query``.
"""
