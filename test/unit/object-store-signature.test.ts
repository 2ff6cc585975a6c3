import { expect, it } from 'vitest';
import { signedHeaders } from '../../src/adapters/object-store-signature.ts';

it('signs the example of the S3 documentation as it does', () => {
  const { authorization } = signedHeaders({
    method: 'GET',
    path: '/',
    search: 'max-keys=2&prefix=J',
    host: 'examplebucket.s3.amazonaws.com',
    body: '',
    access: {
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
      secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
      region: 'us-east-1',
    },
    now: new Date('2013-05-24T00:00:00Z'),
  });
  expect(authorization).toBe(
    'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, ' +
      'SignedHeaders=host;x-amz-content-sha256;x-amz-date, ' +
      'Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  );
});
